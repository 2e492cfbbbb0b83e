//! Generators → agents → collector → lake, and what the collector tells over HTTP.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use headwater_proto::sample::Value;
use headwater_signals::METRICS;
use headwater_tests::lake::{Audit, each_sample, rows};
use headwater_tests::process::wait_for;
use headwater_tests::signals::Signals;
use headwater_tests::site::{AgentSettings, Site, at_a_site};
use serde_json::{Value as Json, json};

#[test]
fn what_generators_make_is_in_the_lake_once_bit_for_bit_and_the_audit_is_complete() {
    at_a_site(|site| {
        site.start_collector()?;
        let mut signals = vec![Signals::live("live-1", 500, 10_000)];
        signals.extend((1..=3).map(|n| Signals::past(&format!("past-{n}"), 4_000)));
        let mut agents = Vec::new();
        for one in &signals {
            agents.push(site.generator(one)?);
        }
        let audit = site.finish_complete(&mut agents, &signals)?;
        let expected: u64 = signals.iter().map(Signals::samples).sum();
        ensure!(
            audit.total("samples")? == expected,
            "{}",
            audit.json["totals"]
        );
        Ok(())
    });
}

#[test]
fn a_fleet_is_read_over_http_while_it_runs() {
    at_a_site(|site| {
        site.start_collector()?;
        let signals = Signals::past("pump-7", 600);
        let mut agent = site.generator(&signals)?;
        agent.wait_until_drained(signals.rows)?;

        ensure!(site.http("/healthz")?.0 == 200);
        ensure!(site.http("/readyz")?.0 == 200);
        ensure!(site.metric("headwater_samples_received_total")? == signals.samples());
        let committed = site.metric("headwater_lake_samples_committed_total")?;
        ensure!(committed == signals.samples(), "committed: {committed}");

        // The hot store reads the journal with a cursor of its own.
        wait_for("the hot store to hold the newest row", || {
            Ok(expect_newest_row(site, &signals).ok())
        })
        .or_else(|_| expect_newest_row(site, &signals))?;
        expect_series(site, &signals)?;
        expect_refusals(site)?;
        expect_nothing_forgotten(site)?;
        site.finish_complete(&mut [agent], &[signals])?;
        Ok(())
    });
}

fn expect_newest_row(site: &Site, signals: &Signals) -> Result<()> {
    let devices = site.json("/v1/devices")?;
    ensure!(devices["devices"][0]["device"] == "pump-7", "{devices}");
    ensure!(
        devices["devices"][0]["samples"] == signals.samples(),
        "{devices}"
    );
    let answer = site.json("/v1/devices/pump-7/latest")?;
    let latest = answer["latest"].as_array().context("no list")?;
    let mut paged = Vec::new();
    let mut query = "limit=1".to_owned();
    while paged.len() <= latest.len() {
        let page = site.json(&format!("/v1/devices/pump-7/latest?{query}"))?;
        paged.extend(page["latest"].as_array().context("no list")?.clone());
        let Some(next) = page["next"].as_str() else {
            break;
        };
        query = format!("limit=1&after={next}");
    }
    ensure!(&paged == latest, "by pages {paged:?}, at once {latest:?}");
    let device = signals.device();
    for (column, metric) in METRICS.iter().enumerate() {
        // A value that is missing in the last row is the newest of an earlier one.
        let newest = (0..signals.rows)
            .rev()
            .find_map(|k| device.row(k).values[column]);
        let told = latest.iter().find(|point| point["metric"] == metric.name);
        let told = told.with_context(|| format!("no {} in {answer}", metric.name))?;
        let newest = as_json(newest.context("a metric without values")?);
        ensure!(
            told["value"] == newest,
            "{}: {told} is not {newest}",
            metric.name
        );
    }
    Ok(())
}

fn expect_series(site: &Site, signals: &Signals) -> Result<()> {
    let device = signals.device();
    let rows: Vec<_> = (100..200).map(|k| device.row(k)).collect();
    let ms = |us: i64| us.div_euclid(1_000);
    let (from, to) = (ms(rows[0].time.0), ms(device.time(200).0));
    let path = format!("/v1/devices/pump-7/series?metric=temperature&from={from}&to={to}");
    let answer = site.json(&path)?;
    ensure!(answer["truncated"] == false, "{answer}");
    // Bounds are whole milliseconds: only rows that surely lie between them are expected.
    let inside = |time: i64| from * 1_000 <= time && time < to * 1_000;
    let extra = (95..205)
        .map(|k| device.row(k))
        .filter(|row| inside(row.time.0));
    let expected: Vec<Json> = extra.filter_map(|row| row.values[0].map(as_json)).collect();
    let points = answer["points"].as_array().context("no points")?;
    let told: Vec<Json> = points.iter().map(|point| point["value"].clone()).collect();
    ensure!(told == expected, "told {told:?}, made {expected:?}");
    Ok(())
}

fn expect_refusals(site: &Site) -> Result<()> {
    for (path, status) in [
        ("/v1/devices/nobody/latest", 404),
        ("/v1/devices/pump-7/series", 400),
        (
            "/v1/devices/pump-7/series?metric=temperature&from=yesterday",
            400,
        ),
        ("/v1/devices?limit=0", 400),
        ("/v1/devices?after=x", 400),
        ("/v2", 404),
    ] {
        let (told, body) = site.http(path)?;
        ensure!(told == status, "GET {path}: {told} {body}");
        let body: Json = serde_json::from_str(&body)?;
        ensure!(body["error"].is_string(), "GET {path}: {body}");
    }
    Ok(())
}

/// A device that is connected is not forgotten, whatever an operator says.
fn expect_nothing_forgotten(site: &Site) -> Result<()> {
    let (code, text) = site.ask(&["devices", "forget", "pump-7", "--json"])?;
    let told: Json = serde_json::from_str(&text).context(text)?;
    let listed = told["listed"].as_array().map_or(0, Vec::len);
    ensure!(code == Some(1) && listed > 0, "{code:?} {told}");
    ensure!(told["abandoned"] == json!([]), "{told}");
    let (code, text) = site.ask(&["devices", "forget", "nobody"])?;
    ensure!(code == Some(1) && text.starts_with("no epoch"), "{text}");
    let (code, text) = site.ask(&["devices", "forget", ""])?;
    ensure!(
        code == Some(2) && text.contains("no device id"),
        "{code:?} {text}"
    );
    Ok(())
}

/// A value as the HTTP interface writes it: the shortest decimal that is this f32 or f64.
fn as_json(value: Value<'_>) -> Json {
    match value {
        Value::Bool(v) => json!(v),
        Value::I64(v) => json!(v),
        Value::F32(v) => json!(v.to_string().parse::<f64>().unwrap_or(f64::NAN)),
        Value::F64(v) => json!(v),
        Value::Str(v) => json!(v),
    }
}

#[test]
fn a_clean_stop_sends_what_the_agent_holds() {
    at_a_site(|site| {
        site.start_collector()?;
        // Nothing but the stop closes a batch.
        let settings = AgentSettings {
            more: "[batch]\nage_ms = 600_000\n".to_owned(),
            ..AgentSettings::default()
        };
        let signals = Signals::past("pump-7", 20);
        let mut agent = site.agent(&signals.device, &signals.toml(), &settings)?;
        agent.start()?;
        agent.wait_status("a link and readings", |status| {
            status["connected"] == true && status["samples"].as_u64() > Some(0)
        })?;
        ensure!(site.metric("headwater_samples_received_total")? == 0);
        agent.stop()?;
        let durable = agent.status().context("no status")?["samples_durable"].clone();
        // The page of metrics is drawn a little later.
        wait_for("all of it at the collector", || {
            let received = site.metric("headwater_samples_received_total")?;
            Ok((received > 0 && durable == received).then_some(()))
        })
    });
}

#[test]
fn readings_of_this_machine_arrive_with_their_units() {
    at_a_site(|site| {
        site.start_collector()?;
        let source = "[[host]]\ninterval_ms = 100\n";
        let mut agent = site.agent("this-machine", source, &AgentSettings::default())?;
        agent.start()?;
        agent.wait_until_durable(100)?;
        agent.stop()?;
        site.stop_collector()?;
        let lake = site.lake();
        Audit::of(&lake)?.expect_good()?;
        let mut metrics = BTreeSet::new();
        each_sample(&lake, |sample| {
            metrics.insert(sample.metric.to_owned());
        })?;
        for part in ["load", "mem"] {
            ensure!(
                metrics.iter().any(|metric| metric.contains(part)),
                "{part}: {metrics:?}"
            );
        }
        ensure!(rows(&lake, "metrics")? > 0, "no units in the lake");
        Ok(())
    });
}

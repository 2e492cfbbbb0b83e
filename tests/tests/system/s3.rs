//! A lake in a bucket of S3: through kills, a service that hangs, and a machine that has nothing any more.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use headwater_tests::cloud::{Proxy, Script};
use headwater_tests::process::{program, wait_for};
use headwater_tests::signals::Signals;
use headwater_tests::site::{Site, at_a_site};
use serde_json::Value as Json;

use crate::faults::address_of;
use crate::setting;
use crate::streams::{CREDENTIALS, Cloud, script};

const ROWS: u64 = 6_000;
/// Microseconds between two rows.
const PERIOD_US: u32 = 10_000;
pub(crate) const LAKE: &str = "s3://lakes/a/lake";

/// The settings of a lake in a bucket that is reached at `endpoint`.
pub(crate) fn place(site: &Site, endpoint: &str, url: &str) -> String {
    format!(
        "url = {url:?}\nregion = \"eu-west-1\"\nendpoint = {endpoint:?}\nstage_dir = {:?}",
        site.folder().join("stage")
    )
}

/// Exit code and output of a command of the collector.
fn command(cloud: &Cloud, arguments: &[&str]) -> Result<(bool, String)> {
    let mut command = Command::new(CREDENTIALS[0]);
    command.args(&CREDENTIALS[1..]);
    command.arg(format!("AWS_ENDPOINT_URL={}", cloud.url));
    let output = command
        .arg(program("headwater-collector")?)
        .args(arguments)
        .output()?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    Ok((output.status.success(), text))
}

/// What is printed by a command that succeeds.
fn done(cloud: &Cloud, arguments: &[&str]) -> Result<String> {
    let (is_good, text) = command(cloud, arguments)?;
    ensure!(is_good, "{arguments:?}: {text}");
    Ok(text)
}

#[test]
fn a_bucket_has_every_row_once_through_kills_and_a_service_that_hangs() {
    at_a_site(|site| {
        let mut cloud = Cloud::start(site.folder())?;
        site.place = Some(place(site, &cloud.url, LAKE));
        site.wrapper = CREDENTIALS.map(str::to_owned).to_vec();
        site.start_collector()?;
        let signals = [
            Signals::live("pump-1", ROWS, PERIOD_US),
            Signals::live("pump-2", ROWS, PERIOD_US),
        ];
        let mut agents = [site.generator(&signals[0])?, site.generator(&signals[1])?];
        agents[0].wait_for_new_readings()?;
        // Requests that were given up are carried out all the same when it goes on.
        cloud.process.signal("STOP")?;
        let failures = "headwater_lake_s3_failures_total";
        let before = site.metric(failures)?;
        wait_for("a request that is given up", || {
            Ok((site.metric(failures).unwrap_or(0) > before).then_some(()))
        })?;
        cloud.process.signal("CONT")?;
        for _ in 0..setting("HEADWATER_KILLS", 5) {
            agents[0].wait_for_new_readings()?;
            site.kill_collector()?;
            site.start_collector()?;
        }
        for (agent, signals) in agents.iter_mut().zip(&signals) {
            agent.wait_until_drained(signals.rows)?;
        }
        for agent in &mut agents {
            agent.stop()?;
        }
        site.stop_collector()?;
        // A machine that has nothing but the bucket.
        fs::remove_dir_all(site.data())?;
        fs::remove_dir_all(site.folder().join("stage"))?;
        site.start_collector()?;
        site.stop_collector()?;
        let copy = site.lake();
        let copy = copy.to_str().context("the folder's name is text")?;
        script("bucket.py", &["fetch", &cloud.url, "lakes", "a/lake", copy])?;
        let audit = site.check(&signals)?;
        for signals in &signals {
            audit.expect_complete(&signals.device)?;
        }
        expect_same_in_place(&cloud, audit.total("samples")?)?;
        cloud.process.kill()?;
        Ok(())
    });
}

/// What commands and readers see in the bucket is what its copy holds.
fn expect_same_in_place(cloud: &Cloud, samples: u64) -> Result<()> {
    let audited = done(cloud, &["audit", "--json", "--lake", LAKE])?;
    let audited: Json = serde_json::from_str(&audited)?;
    ensure!(audited["totals"]["samples"] == samples, "{audited}");
    done(cloud, &["lake", "verify", "--lake", LAKE])?;
    let ddl = done(cloud, &["ddl", "--engine", "athena", "--lake", LAKE])?;
    ensure!(ddl.contains(LAKE), "{ddl}");
    let counted: Json = serde_json::from_str(&script("bucket.py", &["count", &cloud.url, LAKE])?)?;
    ensure!(counted["by_log"] == samples, "{counted} of {samples}");
    ensure!(counted["by_list"] == samples, "{counted} of {samples}");
    // Everything is of today.
    let pruned = done(
        cloud,
        &["lake", "prune", "--keep-days", "1", "--lake", LAKE],
    )?;
    ensure!(pruned.starts_with("0 files"), "{pruned}");
    let (is_good, told) = command(cloud, &["audit", "--lake", "s3://lakes/no/lake"])?;
    ensure!(!is_good && told.contains("is no lake"), "{told}");
    Ok(())
}

#[test]
fn check_says_what_is_wrong_with_a_bucket() {
    at_a_site(|site| {
        let mut cloud = Cloud::start(site.folder())?;
        for (url, words) in [
            ("s3://nobodys-bucket/lake", "make the bucket"),
            ("s3://Telemetry", "3 to 63 of a-z"),
        ] {
            let config = site.folder().join("wrong.toml");
            let lake = place(site, &cloud.url, url);
            fs::write(&config, format!("[[sink]]\nkind = \"lake\"\n{lake}\n"))?;
            let config = config.to_str().context("the file's name is text")?;
            let (is_good, told) = command(&cloud, &["run", "--check", "--config", config])?;
            ensure!(!is_good && told.contains(words), "{url}: {told}");
        }
        cloud.process.kill()?;
        Ok(())
    });
}

#[test]
fn a_flush_writes_two_objects_for_each_table_with_rows_and_the_head_and_reads_the_owner() {
    at_a_site(|site| {
        let mut cloud = Cloud::start(site.folder())?;
        let proxy = Proxy::start(address_of(&cloud.url)?, Script::new(1))?;
        site.place = Some(place(site, &proxy.url(), LAKE));
        site.wrapper = CREDENTIALS.map(str::to_owned).to_vec();
        site.start_collector()?;
        let signals = [Signals::live("pump-1", 500, 20_000)];
        let started = Requests::of(&proxy);
        let calls = |name| proxy.ledger().calls(name);
        let (gets, lists) = (calls("GetObject"), calls("ListObjectsV2"));
        let mut agents = [site.generator(&signals[0])?];
        agents[0].wait_until_drained(signals[0].rows)?;
        agents[0].stop()?;
        let flushes = site.metric("headwater_lake_flushes_total")?;
        site.stop_collector()?;
        let all = Requests::of(&proxy);
        println!(
            "start: {started:?}\nwith {flushes} flushes: {all:?}\n{}",
            proxy.ledger().table()
        );
        // Each file stands in one version; a start makes and raises the logs of eight tables.
        ensure!(
            all.files > flushes && all.files == all.versions - started.versions,
            "{all:?}"
        );
        // The last flush comes with the end.
        let heads = all.heads - started.heads;
        ensure!(
            (flushes..=flushes + 2).contains(&heads),
            "{heads} heads, {flushes} flushes"
        );
        let gets = proxy.ledger().calls("GetObject") - gets;
        ensure!(gets <= heads + 4, "{gets} reads, {heads} flushes");
        ensure!(
            proxy.ledger().calls("ListObjectsV2") == lists,
            "a flush lists"
        );
        // Marks, catalog, owner, checkpoints, one schema: by time and by count, never by flush.
        let other = all.other - started.other;
        ensure!(other <= 8, "{other} others: {all:?}");
        drop(proxy);
        cloud.process.kill()?;
        Ok(())
    });
}

/// Objects that were written, by what they are.
#[derive(Debug, Default)]
struct Requests {
    files: u64,
    versions: u64,
    heads: u64,
    other: u64,
}

impl Requests {
    fn of(proxy: &Proxy) -> Self {
        let mut all = Self::default();
        for put in proxy.ledger().puts() {
            let kind = match put.key.as_str() {
                key if key.contains("/hot/") => &mut all.files,
                key if key.contains("/_delta_log/") && key.ends_with(".json") => &mut all.versions,
                key if key.ends_with("/head.json") => &mut all.heads,
                _ => &mut all.other,
            };
            *kind += 1;
        }
        all
    }
}

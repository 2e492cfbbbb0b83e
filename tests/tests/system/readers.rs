//! Other people's programs read the lake and find what the generators made.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use headwater_lake::guard::guard;
use headwater_lake::store::LocalStore;
use headwater_tests::lake::rows;
use headwater_tests::signals::{Signals, totals};
use headwater_tests::site::{Site, at_a_site};

#[test]
fn duckdb_polars_pyarrow_pandas_and_deltalake_find_what_the_generators_made() {
    at_a_site(|site| {
        site.start_collector()?;
        let mut signals: Vec<_> = (1..=3)
            .map(|n| Signals::past(&format!("pump-{n}"), 5_000))
            .collect();
        // One of them crosses midnight: its rows lie in two partitions.
        let day_us = 86_400_000_000;
        signals[0].start_us = signals[0].start_us.div_euclid(day_us) * day_us - 25_000_000;
        let mut agents = Vec::new();
        for one in &signals {
            agents.push(site.generator(one)?);
        }
        let audit = site.finish_complete(&mut agents, &signals)?;
        expect_readers_agree(site, &signals, audit.total("samples")?)?;
        expect_format(site)
    });
}

fn expect_readers_agree(site: &Site, signals: &[Signals], audited: u64) -> Result<()> {
    let mut expected = totals(signals);
    ensure!(
        expected["rows"] == audited,
        "made {}, audited {audited}",
        expected["rows"]
    );
    let lake = site.lake();
    for table in [
        "logs",
        "quarantine",
        "gaps",
        "epochs",
        "devices",
        "metrics",
        "digests",
    ] {
        expected["tables"][table] = rows(&lake, table)?.into();
    }
    let path = site.folder().join("totals.json");
    std::fs::write(&path, expected.to_string())?;
    let python = std::env::var_os("HEADWATER_PYTHON").context(
        "HEADWATER_PYTHON names no interpreter with the lake's readers: run tests/run, which \
         installs them (tests/readers/requirements.txt) and sets it",
    )?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("readers/check_lake.py");
    let output = Command::new(python)
        .arg(script)
        .arg(&lake)
        .arg("--expect")
        .arg(path)
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    let failed = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{said}{failed}");
    for reader in ["duckdb", "polars", "pyarrow", "pandas", "deltalake"] {
        ensure!(said.contains(reader), "{reader} did not read: {said}");
    }
    Ok(())
}

/// Encodings, columns, declared sort and date of every file.
fn expect_format(site: &Site) -> Result<()> {
    let guarded = guard(&LocalStore::new(&site.lake())?)?;
    ensure!(guarded.fault_count == 0, "{:#?}", guarded.faults);
    ensure!(
        guarded.files > 3,
        "only {} files were checked",
        guarded.files
    );
    Ok(())
}

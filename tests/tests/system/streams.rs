//! The lake, a Kinesis stream and a Firehose stream side by side: each has every row, through kills and a service that
//! hangs.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use headwater_tests::process::{Process, free_port, wait_for};
use headwater_tests::signals::Signals;
use headwater_tests::site::{Site, at_a_site};
use serde_json::Value as Json;

const ROWS: u64 = 8_000;
/// Microseconds between two rows.
const PERIOD_US: u32 = 3_000;
pub(crate) const SINKS: [&str; 2] = ["kinesis", "firehose"];

/// An emulator of AWS on this machine.
pub(crate) struct Cloud {
    pub(crate) process: Process,
    pub(crate) url: String,
}

impl Cloud {
    /// With a bucket and two streams, all called `telemetry`, and a bucket called `lakes`.
    pub(crate) fn start(folder: &Path) -> Result<Self> {
        let port = free_port()?;
        let mut command = Command::new(python()?);
        command
            .args(["-m", "ministack"])
            .env("BIND_HOST", "127.0.0.1")
            .env("GATEWAY_PORT", port.to_string())
            .env("SFTP_ENABLED", "0")
            .env("PERSIST_STATE", "0");
        let process = Process::start("ministack", folder, &mut command)?;
        let cloud = Self {
            process,
            url: format!("http://127.0.0.1:{port}"),
        };
        wait_for("an emulator of AWS", || {
            let address = ([127, 0, 0, 1], port).into();
            let answer = headwater_tests::process::http_get(address, "/_ministack/health");
            Ok(answer.ok().filter(|(code, _)| *code == 200).map(drop))
        })?;
        script("streams.py", &["make", &cloud.url])?;
        Ok(cloud)
    }
}

fn python() -> Result<std::ffi::OsString> {
    std::env::var_os("HEADWATER_PYTHON").context(
        "HEADWATER_PYTHON names no interpreter with the emulator of AWS: run tests/run, which installs it \
         (tests/readers/requirements.txt) and sets it",
    )
}

/// Credentials that the emulator takes, for whatever is started after them.
pub(crate) const CREDENTIALS: [&str; 5] = [
    "env",
    "AWS_ACCESS_KEY_ID=test",
    "AWS_SECRET_ACCESS_KEY=test",
    "AWS_REGION=eu-west-1",
    "AWS_EC2_METADATA_DISABLED=true",
];

/// What a script of `tests/cloud` prints, if it ends well.
pub(crate) fn script(name: &str, arguments: &[&str]) -> Result<String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("cloud")
        .join(name);
    let output = Command::new(python()?)
        .arg(script)
        .args(arguments)
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let failed = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{said}{failed}");
    Ok(said)
}

pub(crate) fn sinks(url: &str) -> String {
    let sink = |kind: &str, more: &str| {
        format!(
            "[[sink]]\nkind = \"{kind}\"\nname = \"{kind}\"\nstream = \"telemetry\"\nregion = \"eu-west-1\"\n\
             endpoint = \"{url}\"\nflush_s = 1\n{more}"
        )
    };
    sink("kinesis", "required = true\n") + &sink("firehose", "")
}

/// Waits until both have all that the journal has.
pub(crate) fn expect_no_lag(site: &Site) -> Result<()> {
    for sink in SINKS {
        wait_for("a stream that has everything", || {
            // It is not there before the sink has begun.
            let lag = site.metric(&format!("headwater_sink_lag_records{{sink=\"{sink}\"}}"));
            Ok(lag.ok().filter(|lag| *lag == 0).map(drop))
        })?;
    }
    Ok(())
}

#[test]
fn kinesis_and_firehose_have_every_row_of_the_lake_through_kills() {
    at_a_site(|site| {
        let mut cloud = Cloud::start(site.folder())?;
        site.settings = sinks(&cloud.url);
        site.wrapper = CREDENTIALS.map(str::to_owned).to_vec();
        site.start_collector()?;
        let signals = [
            Signals::live("pump-1", ROWS, PERIOD_US),
            Signals::live("pump-2", ROWS, PERIOD_US),
        ];
        let mut agents = [site.generator(&signals[0])?, site.generator(&signals[1])?];
        // A service that hangs: what the collector gave up on arrives all the same, and again.
        agents[0].wait_for_new_readings()?;
        cloud.process.signal("STOP")?;
        let failures = "headwater_sink_failures_total{sink=\"kinesis\",code=\"busy\"}";
        wait_for("a call that is given up", || {
            Ok((site.metric(failures).unwrap_or(0) > 0).then_some(()))
        })?;
        cloud.process.signal("CONT")?;
        for _ in 0..3 {
            agents[0].wait_for_new_readings()?;
            let before = site.metric("headwater_stream_records_total{sink=\"kinesis\"}")?;
            wait_for("records in Kinesis", || {
                let now = site.metric("headwater_stream_records_total{sink=\"kinesis\"}")?;
                Ok((now > before).then_some(()))
            })?;
            site.kill_collector()?;
            site.start_collector()?;
        }
        let audit = site.finish_complete(&mut agents, &signals)?;
        site.start_collector()?;
        expect_no_lag(site)?;
        site.stop_collector()?;
        let lake = site.lake();
        let lake = lake.to_str().context("the folder's name is text")?;
        let counted = script("streams.py", &["compare", &cloud.url, lake])?;
        let counted: Json = serde_json::from_str(&counted)?;
        let samples = audit.total("samples")?;
        ensure!(counted["lake"] == samples, "{counted} of {samples}");
        for sink in SINKS {
            ensure!(
                counted[sink]["samples"] == samples,
                "{counted} of {samples}"
            );
        }
        // What a Lambda function makes of the stream, however often it fails.
        script("lambda_test.py", &["emulator", &cloud.url, "telemetry"])?;
        cloud.process.kill()?;
        Ok(())
    });
}

#[test]
fn the_lambda_consumer_keeps_its_promises() -> Result<()> {
    script("lambda_test.py", &["unit"]).map(drop)
}

//! The output of a command, started at an interval: lines, or a JSON document over several. A command
//! that runs too long is killed.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::pin::pin;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tokio::process::Command;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::kind::{Declared, Kind, Start, normal};
use super::lines::{Intake, LineFormat, influx};
use super::refusals::Refusals;
use super::supervisor::SourceError;
use super::{MAX_DOCUMENT_BYTES, Port, Stop, Stopped};
use crate::check::millis;
use headwater_program::findings::Findings;

/// A command's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecSource {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Milliseconds between two starts.
    pub interval_ms: u64,
    /// Milliseconds after which it is killed.
    pub timeout_ms: u64,
    /// How its lines are read.
    pub format: LineFormat,
}

/// A source of that kind, as it is written in a configuration.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawExec {
    name: String,
    #[serde(default = "normal")]
    lane: String,
    command: Vec<String>,
    #[serde(default = "ten_seconds")]
    interval_ms: u64,
    #[serde(default = "five_seconds")]
    timeout_ms: u64,
    #[serde(default = "influx")]
    format: LineFormat,
}

const fn ten_seconds() -> u64 {
    10_000
}

const fn five_seconds() -> u64 {
    5000
}

impl Kind for ExecSource {
    type Raw = RawExec;

    fn check(raw: RawExec, problems: &mut Vec<String>) -> Declared<Self> {
        let RawExec {
            name,
            lane,
            command,
            interval_ms,
            timeout_ms,
            format,
        } = raw;
        if command.first().is_none_or(String::is_empty) {
            problems.push(format!("exec.{name}.command: must name a program"));
        }
        let settings = Self {
            command,
            interval_ms: millis(&format!("exec.{name}.interval_ms"), interval_ms, problems),
            timeout_ms: millis(&format!("exec.{name}.timeout_ms"), timeout_ms, problems),
            format,
        };
        Declared {
            name,
            lane,
            settings,
        }
    }

    fn examine(&self, name: &str, found: &mut Findings) {
        let program = self.command.first().filter(|program| !program.is_empty());
        if let Some(program) = program
            && let Err(why) = executable(program, env::var_os("PATH").as_deref())
        {
            found.fault(&format!("exec.{name}.command"), program, &why);
        }
    }

    async fn run(self, start: Start) -> Result<(), SourceError> {
        Ok(run(&self, start.port, start.stop, start.refusals).await?)
    }
}

/// Runs the command until told to stop.
///
/// # Errors
/// [`Stopped`] if the engine is gone.
pub async fn run(
    config: &ExecSource,
    port: Port,
    stop: Stop,
    refusals: Arc<Refusals>,
) -> Result<(), Stopped> {
    let intake = intake(config, port, refusals);
    let mut every = interval(Duration::from_millis(config.interval_ms));
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.stopped() => return Ok(()),
            _ = every.tick() => {}
        }
        // Its own, so that a command which is cut off ends as a connection does: what it wrote is taken.
        let enough = Stop::default();
        let intake = Intake {
            stop: enough.clone(),
            ..intake.clone()
        };
        let mut running = pin!(once(config, &intake));
        let ran = tokio::select! {
            ran = &mut running => ran,
            () = stop.stopped() => {
                enough.stop();
                let _ = running.await;
                return Ok(());
            }
            () = sleep(Duration::from_millis(config.timeout_ms)) => {
                enough.stop();
                let _ = running.await;
                Err(ExecError::TooLong(config.timeout_ms))
            }
        };
        match ran {
            Ok(()) => intake.port.up(),
            Err(ExecError::Stopped(stopped)) => return Err(stopped),
            Err(error) => intake.port.failing(&error.to_string()),
        }
    }
}

/// A command may take its time within a document: its end is the document's end, and both come by the
/// timeout.
fn intake(config: &ExecSource, port: Port, refusals: Arc<Refusals>) -> Intake {
    Intake {
        record_bytes: MAX_DOCUMENT_BYTES,
        patience: None,
        ..Intake::new(config.format.into(), port, refusals)
    }
}

/// Why one run gave nothing.
#[derive(Debug, thiserror::Error)]
enum ExecError {
    #[error("cannot start the command: {0}")]
    Start(#[from] std::io::Error),
    #[error("the command ended with {0}")]
    Status(std::process::ExitStatus),
    #[error("the command ran for {0} ms and was killed")]
    TooLong(u64),
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// Starts the command and takes what it writes. It is killed when the intake is told to stop.
async fn once(config: &ExecSource, intake: &Intake) -> Result<(), ExecError> {
    let [program, arguments @ ..] = config.command.as_slice() else {
        return Ok(());
    };
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    if let Some(output) = child.stdout.take() {
        intake.stream(output).await?;
    }
    let status = tokio::select! {
        () = intake.stop.stopped() => return Err(ExecError::Stopped(Stopped)),
        status = child.wait() => status?,
    };
    if status.success() {
        Ok(())
    } else {
        Err(ExecError::Status(status))
    }
}

/// Whether `program` can be started; without a `/` it is looked for in the folders of `search`.
fn executable(program: &str, search: Option<&OsStr>) -> Result<(), String> {
    let may_run = |path: &Path| {
        let metadata = fs::metadata(path).map_err(|error| error.to_string())?;
        if metadata.is_file() && metadata.permissions().mode() & 0o111 != 0 {
            Ok(())
        } else {
            Err("is not a program that may be run".to_owned())
        }
    };
    if program.contains('/') {
        return may_run(Path::new(program));
    }
    env::split_paths(search.unwrap_or_default())
        .find_map(|folder| may_run(&folder.join(program)).ok())
        .ok_or_else(|| "no folder of PATH has this program".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::source::{Feed, QUEUE_READINGS};
    use headwater_proto::sample::OwnedValue;
    use tokio::time::timeout;

    fn refusals() -> Arc<Refusals> {
        Arc::new(Refusals::new("x", Clock::start()))
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.unwrap().block_on(future)
    }

    fn config(script: &str) -> ExecSource {
        ExecSource {
            command: ["sh", "-c", script].map(str::to_owned).to_vec(),
            interval_ms: 10,
            timeout_ms: 200,
            format: LineFormat::Json,
        }
    }

    #[test]
    fn the_output_of_a_command_becomes_readings_again_and_again() {
        block_on(async {
            let (port, mut inlet) = Port::new("x", Arc::default());
            let stop = Stop::default();
            let config = config(r#"echo '{"t": 1}'"#);
            let running = run(&config, port, stop.clone(), refusals());
            let seen = async {
                for _ in 0..2 {
                    assert!(matches!(inlet.queue.recv().await, Some(Feed::Reading(..))));
                }
                stop.stop();
            };
            let (ran, ()) = tokio::join!(running, seen);
            ran.unwrap();
        });
    }

    /// All readings come through of a command that writes more than the queue holds and then goes on
    /// for long, though none is taken before it is cut off.
    fn all_are_taken_when_cut_off(timeout_ms: u64, cut_off: impl AsyncFnOnce(&Stop)) {
        const WRITTEN: usize = 2 * QUEUE_READINGS;
        block_on(async {
            let (port, mut inlet) = Port::new("x", Arc::default());
            let stop = Stop::default();
            let writes = format!(
                r#"i=0; while [ $i -lt {WRITTEN} ]; do echo "{{\"t\": $i}}"; i=$((i+1)); done; exec sleep 600"#
            );
            let config = ExecSource {
                timeout_ms,
                interval_ms: 600_000,
                ..config(&writes)
            };
            let running = run(&config, port, stop.clone(), refusals());
            let seen = async {
                while inlet.queue.len() < QUEUE_READINGS {
                    sleep(Duration::from_millis(1)).await;
                }
                cut_off(&stop).await;
                let mut taken = 0;
                let all = async {
                    while taken < WRITTEN && inlet.queue.recv().await.is_some() {
                        taken += 1;
                    }
                };
                let _ = timeout(Duration::from_secs(30), all).await;
                stop.stop();
                taken
            };
            let (ran, taken) = tokio::join!(running, seen);
            ran.unwrap();
            assert_eq!(taken, WRITTEN);
        });
    }

    #[test]
    fn what_a_command_wrote_is_taken_when_the_agent_stops() {
        all_are_taken_when_cut_off(600_000, async |stop| stop.stop());
    }

    #[test]
    fn what_a_command_wrote_is_taken_when_it_runs_too_long() {
        // Longer than the command may run, so that it is cut off with readings in hand.
        all_are_taken_when_cut_off(500, async |_| sleep(Duration::from_millis(1000)).await);
    }

    #[test]
    fn a_document_over_several_lines_is_one_reading() {
        block_on(async {
            let (port, mut inlet) = Port::new("x", Arc::default());
            let script = r#"printf '{\n  "cpu": {\n "Package id 0": { "temp1_input": 48.000 }'; sleep 0.05; printf '}}\n'"#;
            let (config, refusals) = (config(script), refusals());
            let intake = intake(&config, port, Arc::clone(&refusals));
            once(&config, &intake).await.unwrap();
            let Ok(Feed::Reading(reading, None)) = inlet.queue.try_recv() else {
                panic!("{:?}", refusals.count());
            };
            assert_eq!(reading.columns[0].name, "cpu.Package id 0.temp1_input");
            assert_eq!(reading.values, [Some(OwnedValue::F64(48.0))]);
            assert!(inlet.queue.try_recv().is_err());
            assert_eq!(refusals.count(), (0, None));
        });
    }

    #[test]
    fn a_command_that_fails_or_is_missing_is_an_error_with_its_cause() {
        block_on(async {
            let (port, _inlet) = Port::new("x", Arc::default());
            let intake = intake(&config(""), port, refusals());
            let failed = once(&config("exit 3"), &intake)
                .await
                .unwrap_err()
                .to_string();
            assert_eq!(failed, "the command ended with exit status: 3");
            let mut missing = config("");
            missing.command = vec!["/no/such/program".into()];
            let failed = once(&missing, &intake).await.unwrap_err().to_string();
            assert!(failed.starts_with("cannot start the command: "), "{failed}");
        });
    }

    #[test]
    fn without_folders_to_search_only_a_path_leads_to_a_program() {
        assert!(executable("sh", None).is_err());
        assert!(executable("/bin/sh", None).is_ok());
    }
}

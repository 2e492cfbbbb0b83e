//! One site under test: a collector, its agents, their disks and the lake, in one folder of its
//! own on free ports of loopback.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use serde_json::Value as Json;
use tempfile::TempDir;

use crate::lake::{Audit, each_sample};
use crate::process::{Process, free_port, http_get, program, wait_for, wait_while_moving};
use crate::signals::{Comparison, Signals};

/// Lines of a log that a failed test shows.
const TAIL_LINES: usize = 25;

/// The collector and where everything lies.
#[derive(Debug)]
pub struct Site {
    folder: TempDir,
    mqtt_port: u16,
    http_port: u16,
    /// More keys of the collector's `[gate]`.
    pub gate: String,
    /// More of the collector's configuration: whole sections.
    pub settings: String,
    /// Where the lake lies, as it is configured, if not in [`Site::lake`].
    pub place: Option<String>,
    /// What the collector's command is started with, for example strace and its arguments.
    pub wrapper: Vec<String>,
    collector: Option<Process>,
}

/// What differs from an agent's defaults.
#[derive(Debug, Clone)]
pub struct AgentSettings {
    /// Disk of the spool.
    pub spool_mib: u32,
    /// More keys of `[spool]`.
    pub spool_more: &'static str,
    /// What it takes for the collector; `None`: the collector.
    pub collector: Option<SocketAddr>,
    /// Where the spool lies; `None`: in the agent's home.
    pub spool_dir: Option<PathBuf>,
    /// Program and arguments that start the agent, the agent's command appended.
    pub wrapper: Vec<String>,
    /// Seconds between two of its statuses.
    pub status_s: u32,
    /// Whole sections more.
    pub more: String,
}

impl Default for AgentSettings {
    fn default() -> Self {
        Self {
            spool_mib: 256,
            spool_more: "",
            collector: None,
            spool_dir: None,
            wrapper: Vec::new(),
            status_s: 1,
            more: String::new(),
        }
    }
}

/// One agent.
#[derive(Debug)]
pub struct Agent {
    name: String,
    home: PathBuf,
    logs: PathBuf,
    config: PathBuf,
    spool: PathBuf,
    wrapper: Vec<String>,
    process: Option<Process>,
}

/// Runs a test at a new site. When it fails, the ends of all logs are in the message and the
/// folder stays.
///
/// # Panics
/// When the test fails.
#[expect(
    clippy::print_stderr,
    reason = "a failed test shows the logs of its processes"
)]
pub fn at_a_site(test: impl FnOnce(&mut Site) -> Result<()>) {
    // Processes of one test count on their share of the machine; a failed test is no reason for the
    // next not to run.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let mut site = Site::new().expect("a folder and two ports for the test");
    if let Err(error) = test(&mut site) {
        drop(site.collector.take());
        eprintln!("{}", site.log_tails());
        site.folder.disable_cleanup(true);
        panic!(
            "{error:#}\nwhat it left is in {}",
            site.folder.path().display()
        );
    }
}

impl Site {
    /// A site with nothing running.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn new() -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("headwater-test-")
            .tempdir()?;
        for name in ["logs", "agents", "lake", "collector"] {
            std::fs::create_dir(folder.path().join(name))?;
        }
        Ok(Self {
            folder,
            mqtt_port: free_port()?,
            http_port: free_port()?,
            gate: String::new(),
            settings: String::new(),
            place: None,
            wrapper: Vec::new(),
            collector: None,
        })
    }

    /// Its folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The lake.
    #[must_use]
    pub fn lake(&self) -> PathBuf {
        self.folder().join("lake")
    }

    /// The collector's own folder: journal and state.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.folder().join("collector")
    }

    /// Where MQTT is spoken.
    #[must_use]
    pub fn mqtt(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.mqtt_port))
    }

    /// Starts the collector and waits until it is ready.
    ///
    /// # Errors
    /// When it ends or does not become ready.
    pub fn start_collector(&mut self) -> Result<()> {
        self.start_collector_with(&[])
    }

    /// The same with more arguments.
    ///
    /// # Errors
    /// When it ends or does not become ready.
    pub fn start_collector_with(&mut self, more: &[&str]) -> Result<()> {
        self.launch_collector(more)?;
        wait_for("the collector to be ready", || {
            self.expect_collector_alive()?;
            Ok(self
                .http("/readyz")
                .ok()
                .filter(|(status, _)| *status == 200))
        })?;
        Ok(())
    }

    /// Starts the collector and waits for nothing.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn launch_collector(&mut self, more: &[&str]) -> Result<()> {
        let config = self.folder().join("collector.toml");
        std::fs::write(&config, self.collector_config())?;
        let mut command = wrapped(&self.wrapper, &program("headwater-collector")?);
        command.args(["run", "--config"]).arg(&config).args(more);
        let logs = self.folder().join("logs");
        self.collector = Some(Process::start("collector", &logs, &mut command)?);
        Ok(())
    }

    fn collector_config(&self) -> String {
        format!(
            "data_dir = {:?}\n\n[gate]\nlisten = \"127.0.0.1:{}\"\n{}\n\n[http]\nlisten = \
             \"127.0.0.1:{}\"\n\n[[sink]]\nkind = \"lake\"\n{}\nflush_s = 1\n\n[[sink]]\nkind = \"hot\"\n{}",
            self.data(),
            self.mqtt_port,
            self.gate,
            self.http_port,
            self.place
                .clone()
                .unwrap_or_else(|| format!("dir = {:?}", self.lake())),
            self.settings
        )
    }

    /// The collector's process.
    ///
    /// # Errors
    /// When none was started.
    pub fn collector(&mut self) -> Result<&mut Process> {
        self.collector
            .as_mut()
            .context("the collector was not started")
    }

    fn expect_collector_alive(&mut self) -> Result<()> {
        let process = self.collector()?;
        if !process.is_running()? {
            bail!("the collector ended: {}", process.output()?);
        }
        Ok(())
    }

    /// SIGKILL.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill_collector(&mut self) -> Result<()> {
        self.collector()?.kill()
    }

    /// SIGTERM; a bad end is an error.
    ///
    /// # Errors
    /// When it does not end in order.
    pub fn stop_collector(&mut self) -> Result<()> {
        let status = self.collector()?.stop()?;
        if !status.success() {
            bail!(
                "the collector ended with {status}: {}",
                self.collector()?.output()?
            );
        }
        Ok(())
    }

    /// Status and body of a GET from the collector.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn http(&self, path: &str) -> Result<(u16, String)> {
        http_get(SocketAddr::from(([127, 0, 0, 1], self.http_port)), path)
    }

    /// Runs the collector's program against the one that runs: its exit code and what it prints.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn ask(&self, args: &[&str]) -> Result<(Option<i32>, String)> {
        let http = format!("127.0.0.1:{}", self.http_port);
        let mut command = Command::new(program("headwater-collector")?);
        let output = command.args(args).args(["--http", &http]).output()?;
        let text = [output.stdout, output.stderr].concat();
        Ok((
            output.status.code(),
            String::from_utf8_lossy(&text).into_owned(),
        ))
    }

    /// The JSON of a GET that succeeds.
    ///
    /// # Errors
    /// When it does not.
    pub fn json(&self, path: &str) -> Result<Json> {
        let (status, body) = self.http(path)?;
        if status != 200 {
            bail!("GET {path}: {status} {body}");
        }
        serde_json::from_str(&body).with_context(|| format!("GET {path}: {body}"))
    }

    /// A counter from `/metrics`; labelled series of one name are added up.
    ///
    /// # Errors
    /// When it is not there.
    pub fn metric(&self, name: &str) -> Result<u64> {
        let (_, text) = self.http("/metrics")?;
        let mut values = text.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let rest = rest.starts_with([' ', '{']).then_some(rest)?;
            rest.rsplit(' ').next()?.parse::<u64>().ok()
        });
        let first = values
            .next()
            .with_context(|| format!("no {name} in:\n{text}"))?;
        Ok(first + values.sum::<u64>())
    }

    /// An agent with one generator, started.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn generator(&self, signals: &Signals) -> Result<Agent> {
        let mut agent = self.agent(&signals.device, &signals.toml(), &AgentSettings::default())?;
        agent.start()?;
        Ok(agent)
    }

    /// An agent with these sources, not started.
    ///
    /// # Errors
    /// When its folder cannot be made.
    pub fn agent(&self, name: &str, sources: &str, settings: &AgentSettings) -> Result<Agent> {
        let home = self.folder().join("agents").join(name);
        std::fs::create_dir_all(&home)?;
        let spool = settings
            .spool_dir
            .clone()
            .unwrap_or_else(|| home.join("spool"));
        let config = home.join("agent.toml");
        let text = format!(
            "device = {name:?}\ntags = {{ site = \"test\" }}\n\n[collector]\naddress = \
             \"{}\"\n\n[spool]\ndir = {spool:?}\nmax_mib = {}\n{}\n\n[status]\nfile = \
             {:?}\ninterval_s = {}\nsocket = {:?}\n\n{}\n{sources}",
            settings.collector.unwrap_or(self.mqtt()),
            settings.spool_mib,
            settings.spool_more,
            home.join("status.json"),
            settings.status_s,
            home.join("send.sock"),
            settings.more
        );
        std::fs::write(&config, text)?;
        Ok(Agent {
            name: name.to_owned(),
            home,
            logs: self.folder().join("logs"),
            config,
            spool,
            wrapper: settings.wrapper.clone(),
            process: None,
        })
    }

    /// Waits for every generator to be drained, stops everything in order, and holds the lake
    /// against the generators: each row once, and a good audit.
    ///
    /// # Errors
    /// When anything is missing, double, wrong or unexplained.
    pub fn finish(&mut self, agents: &mut [Agent], signals: &[Signals]) -> Result<Audit> {
        for agent in agents.iter_mut() {
            if let Some(expected) = signals.iter().find(|one| one.device == agent.name) {
                agent.wait_until_drained(expected.rows)?;
            }
        }
        for agent in agents.iter_mut() {
            agent.stop()?;
        }
        self.stop_collector()?;
        self.check(signals)
    }

    /// As [`Site::finish`]; besides, every stream of the generators is complete without a gap.
    ///
    /// # Errors
    /// As there.
    pub fn finish_complete(&mut self, agents: &mut [Agent], signals: &[Signals]) -> Result<Audit> {
        let audit = self.finish(agents, signals)?;
        signals
            .iter()
            .try_for_each(|one| audit.expect_complete(&one.device))?;
        Ok(audit)
    }

    /// Holds the lake against the generators and its own audit.
    ///
    /// # Errors
    /// When anything is missing, double, wrong or unexplained.
    pub fn check(&self, signals: &[Signals]) -> Result<Audit> {
        let audit = Audit::of(&self.lake())?;
        let mut comparison = Comparison::of(signals)?;
        let rows = each_sample(&self.lake(), |sample| comparison.see(sample))?;
        comparison.found().expect_all_once()?;
        audit.expect_good()?;
        if audit.total("samples")? != rows {
            bail!(
                "the audit counts {} samples, the files hold {rows}",
                audit.total("samples")?
            );
        }
        Ok(audit)
    }

    fn log_tails(&self) -> String {
        let mut text = String::new();
        let Ok(logs) = std::fs::read_dir(self.folder().join("logs")) else {
            return text;
        };
        for path in logs.flatten().map(|entry| entry.path()) {
            let log = std::fs::read(&path).unwrap_or_default();
            let log = String::from_utf8_lossy(&log);
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n");
            let _ = writeln!(text, "--- {}\n{tail}", path.display());
        }
        text
    }
}

impl Agent {
    /// Starts it, again if it ran before.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&mut self) -> Result<()> {
        let mut command = wrapped(&self.wrapper, &program("headwater-agent")?);
        command.args(["run", "--config"]).arg(&self.config);
        // What the last life said must not be taken for this one's.
        if self.status().is_some() {
            std::fs::remove_file(self.home.join("status.json"))?;
        }
        self.process = Some(Process::start(&self.name, &self.logs, &mut command)?);
        Ok(())
    }

    /// Device id.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its configuration.
    #[must_use]
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// Folder of its spool.
    #[must_use]
    pub fn spool(&self) -> &Path {
        &self.spool
    }

    /// Its process.
    ///
    /// # Errors
    /// When it was not started.
    pub fn process(&mut self) -> Result<&mut Process> {
        self.process.as_mut().context("the agent was not started")
    }

    /// SIGKILL.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&mut self) -> Result<()> {
        self.process()?.kill()
    }

    /// SIGTERM; a bad end is an error.
    ///
    /// # Errors
    /// When it does not end in order.
    pub fn stop(&mut self) -> Result<()> {
        let name = self.name.clone();
        let status = self.process()?.stop()?;
        if !status.success() {
            bail!("{name} ended with {status}: {}", self.process()?.output()?);
        }
        Ok(())
    }

    /// Its status file; `None` while there is none.
    #[must_use]
    pub fn status(&self) -> Option<Json> {
        serde_json::from_slice(&std::fs::read(self.home.join("status.json")).ok()?).ok()
    }

    /// Waits until `look` likes the status file.
    ///
    /// # Errors
    /// When the agent ends, or time is up; the newest status is in the message.
    pub fn wait_status(&mut self, what: &str, look: impl Fn(&Json) -> bool) -> Result<Json> {
        self.wait_status_moving(what, look, |_| ())
    }

    /// As [`Agent::wait_status`], with patience as long as what `progress` shows changes.
    fn wait_status_moving<P: PartialEq>(
        &mut self,
        what: &str,
        look: impl Fn(&Json) -> bool,
        progress: impl Fn(&Json) -> P,
    ) -> Result<Json> {
        let what = format!("{}: {what}", self.name);
        let found = wait_while_moving(&what, || {
            let process = self.process()?;
            if !process.is_running()? {
                bail!("the agent ended: {}", process.output()?);
            }
            let status = self.status();
            let moved = status.as_ref().map(&progress);
            Ok((status.filter(|status| look(status)), moved))
        });
        found.with_context(|| format!("status: {}", self.status().unwrap_or_default()))
    }

    /// Waits until its generator has made all of its `rows` rows, however long that takes.
    ///
    /// # Errors
    /// When it stops before.
    pub fn wait_until_made(&mut self, rows: u64) -> Result<()> {
        self.wait_status_moving(
            "everything on its disk",
            |status| status["sources"][0]["cursor"].as_u64() == Some(rows),
            |status| status["sources"][0]["cursor"].clone(),
        )?;
        Ok(())
    }

    /// Waits until its generator has made `rows` rows and all of them are in the lake.
    ///
    /// # Errors
    /// When that does not happen in time.
    pub fn wait_until_drained(&mut self, rows: u64) -> Result<()> {
        self.wait_status_moving(
            "all rows made and committed",
            |status| {
                status["sources"][0]["cursor"].as_u64() == Some(rows)
                    && status["backlog_records"].as_u64() == Some(0)
            },
            |status| {
                (
                    status["sources"][0]["cursor"].clone(),
                    status["backlog_records"].clone(),
                )
            },
        )?;
        Ok(())
    }

    /// Waits until it has made more readings durable than it had at this moment.
    ///
    /// # Errors
    /// When that does not happen in time.
    pub fn wait_for_new_readings(&mut self) -> Result<()> {
        let before = self.wait_status("a status", |_| true)?["samples_durable"].clone();
        self.wait_status("new readings on its disk", |status| {
            status["samples_durable"].as_u64() > before.as_u64()
        })?;
        Ok(())
    }

    /// Waits until this life has put at least `samples` samples on its disk.
    ///
    /// # Errors
    /// When that does not happen in time.
    pub fn wait_until_durable(&mut self, samples: u64) -> Result<()> {
        self.wait_status(&format!("{samples} samples on its disk"), |status| {
            status["samples_durable"].as_u64() >= Some(samples)
        })?;
        Ok(())
    }
}

fn wrapped(wrapper: &[String], program: &Path) -> Command {
    let Some((first, rest)) = wrapper.split_first() else {
        return Command::new(program);
    };
    let mut command = Command::new(first);
    command.args(rest).arg(program);
    command
}

/// Disk that a folder takes, in bytes: blocks, not lengths.
///
/// # Errors
/// When it cannot be read.
pub fn disk_bytes(folder: &Path) -> Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let mut total = 0;
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            // A file may be recycled between the listing and the look at it.
            let Ok(meta) = entry.metadata() else { continue };
            if meta.is_dir() {
                folders.push(entry.path());
            } else {
                total += meta.blocks() * 512;
            }
        }
    }
    Ok(total)
}

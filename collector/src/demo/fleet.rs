//! The demo's processes: one collector, one agent that reads this machine, generators for the rest.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::{Context, Result, bail};

/// Row period of a generated device: 100 rows of 8 metrics a second.
pub(super) const PERIOD_US: u32 = 10_000;
/// Seed of all generated devices; their names make them differ.
pub(super) const SEED: u64 = 20_261_122;
/// Name of the agent that reads this machine.
pub(super) const HOST: &str = "this-machine";

/// A program of ours that can be killed and started again with the same state.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) name: String,
    pub(super) kills: u32,
    command: PathBuf,
    config: PathBuf,
    log: PathBuf,
    child: Option<Child>,
}

/// All processes, and where they live.
#[derive(Debug)]
pub(super) struct Fleet {
    pub(super) collector: Program,
    /// The first reads this machine, the others are generated.
    pub(super) agents: Vec<Program>,
    pub(super) http_port: u16,
    dir: PathBuf,
}

/// What the fleet is made from.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    pub(super) dir: &'a Path,
    pub(super) collector: &'a Path,
    pub(super) agent: &'a Path,
    pub(super) devices: usize,
    /// Time of the first generated row, Unix µs.
    pub(super) start_us: i64,
    /// Rows of each generated device.
    pub(super) rows: u64,
}

impl Fleet {
    /// Writes the configurations; nothing runs yet.
    pub(super) fn prepare(plan: &Plan<'_>) -> Result<Self> {
        let dir = plan.dir.to_path_buf();
        for folder in ["logs", "collector", "lake"] {
            make(&dir.join(folder))?;
        }
        let (mqtt_port, http_port) = (free_port()?, free_port()?);
        let config = dir.join("collector.toml");
        write(&config, &collector_config(&dir, mqtt_port, http_port))?;
        let collector = Program::new("collector", plan.collector, config, &dir);
        let mut agents = Vec::new();
        for number in 0..plan.devices {
            let name = device_name(number);
            let home = dir.join("agents").join(&name);
            make(&home)?;
            let source = if number == 0 {
                "[[host]]\ninterval_ms = 200\n".to_owned()
            } else {
                format!(
                    "[[generator]]\nseed = {SEED}\nstart_us = {}\nperiod_us = {PERIOD_US}\n\
                     speed = 1.0\nrows = {}\n",
                    plan.start_us, plan.rows
                )
            };
            let config = dir.join("agents").join(format!("{name}.toml"));
            write(&config, &agent_config(&name, &home, mqtt_port, &source))?;
            agents.push(Program::new(&name, plan.agent, config, &dir));
        }
        Ok(Self {
            collector,
            agents,
            http_port,
            dir,
        })
    }

    /// Starts everything, the collector first.
    pub(super) fn start(&mut self) -> Result<()> {
        self.collector.start()?;
        self.agents.iter_mut().try_for_each(Program::start)
    }

    pub(super) fn lake(&self) -> PathBuf {
        self.dir.join("lake")
    }

    pub(super) fn status_file(&self, agent: usize) -> PathBuf {
        self.dir
            .join("agents")
            .join(&self.agents[agent].name)
            .join("status.json")
    }

    /// Fails if something ended that nobody killed.
    pub(super) fn check_alive(&mut self) -> Result<()> {
        self.collector.check_alive()?;
        self.agents.iter_mut().try_for_each(Program::check_alive)
    }

    pub(super) fn kills(&self) -> u32 {
        self.collector.kills + self.agents.iter().map(|agent| agent.kills).sum::<u32>()
    }
}

/// Name of a device: the first is this machine.
pub(super) fn device_name(number: usize) -> String {
    if number == 0 {
        HOST.to_owned()
    } else {
        format!("demo-{number:03}")
    }
}

impl Program {
    fn new(name: &str, command: &Path, config: PathBuf, dir: &Path) -> Self {
        Self {
            name: name.to_owned(),
            kills: 0,
            command: command.to_path_buf(),
            config,
            log: dir.join("logs").join(format!("{name}.log")),
            child: None,
        }
    }

    pub(super) fn start(&mut self) -> Result<()> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(&self.log)
            .with_context(|| format!("cannot write {}", self.log.display()))?;
        let child = Command::new(&self.command)
            .args(["run", "--config"])
            .arg(&self.config)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", self.command.display()))?;
        self.child = Some(child);
        Ok(())
    }

    /// SIGKILL: no chance to sync or say anything.
    pub(super) fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child
                .kill()
                .with_context(|| format!("cannot kill {}", self.name))?;
            child.wait()?;
            self.kills += 1;
        }
        Ok(())
    }

    /// SIGTERM: stop in good order.
    pub(super) fn ask_to_stop(&self) -> Result<()> {
        if let Some(child) = &self.child {
            let pid = i32::try_from(child.id()).context("a process id is out of range")?;
            let pid = rustix::process::Pid::from_raw(pid).context("a process id is zero")?;
            rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        }
        Ok(())
    }

    /// Whether it has ended; fails if it ended badly.
    pub(super) fn has_stopped(&mut self) -> Result<bool> {
        let Some(child) = &mut self.child else {
            return Ok(true);
        };
        match child.try_wait()? {
            None => Ok(false),
            Some(status) if status.success() => {
                self.child = None;
                Ok(true)
            }
            Some(status) => bail!(self.obituary(status)),
        }
    }

    fn check_alive(&mut self) -> Result<()> {
        if let Some(child) = &mut self.child
            && let Some(status) = child.try_wait()?
        {
            bail!(self.obituary(status));
        }
        Ok(())
    }

    /// What a person needs to know about an end that nobody asked for.
    fn obituary(&self, status: ExitStatus) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(12)..].join("\n  ");
        format!(
            "{} ended with {status}; its log {} ends:\n  {tail}",
            self.name,
            self.log.display()
        )
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // Already ended is as good as killed.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn collector_config(dir: &Path, mqtt_port: u16, http_port: u16) -> String {
    format!(
        "data_dir = {:?}\n\n[gate]\nlisten = \"127.0.0.1:{mqtt_port}\"\n\n[http]\nlisten = \
         \"127.0.0.1:{http_port}\"\n\n[[sink]]\nkind = \"lake\"\ndir = \
         {:?}\nflush_s = 2\n\n[[sink]]\nkind = \"hot\"\n",
        dir.join("collector"),
        dir.join("lake")
    )
}

fn agent_config(name: &str, home: &Path, mqtt_port: u16, source: &str) -> String {
    format!(
        "device = {name:?}\ntags = {{ site = \"demo\" }}\n\n[collector]\naddress = \
         \"127.0.0.1:{mqtt_port}\"\n\n[spool]\ndir = {:?}\n\n[status]\nfile = {:?}\ninterval_s = \
         1\nsocket = \"\"\n\n{source}",
        home.join("spool"),
        home.join("status.json")
    )
}

fn free_port() -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("loopback has no free port")?;
    Ok(listener.local_addr()?.port())
}

fn make(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

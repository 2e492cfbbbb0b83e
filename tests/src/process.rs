//! Real processes under test: started with a log file, awaited by condition, ended by their id.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// Longest wait for a condition: far above what a loaded two-core machine needs.
pub const PATIENCE: Duration = Duration::from_secs(90);
/// Pause between two looks at a condition.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Unit of processor time in `/proc`: the same on every Linux that Rust runs on.
const CLOCK_TICKS_PER_SECOND: f64 = 100.0;

/// The path of one of headwater's programs: from `HEADWATER_BIN`, or beside the running program or
/// test.
///
/// # Errors
/// When it is not built yet; the message says how to build it.
pub fn program(name: &str) -> Result<PathBuf> {
    let folders = match std::env::var_os("HEADWATER_BIN") {
        Some(folder) => vec![PathBuf::from(folder)],
        None => {
            // A test lies in `deps`, one below the programs.
            let me = std::env::current_exe()?;
            me.ancestors()
                .skip(1)
                .take(2)
                .map(Path::to_path_buf)
                .collect()
        }
    };
    let found = folders
        .iter()
        .map(|folder| folder.join(name))
        .find(|path| path.exists());
    found.with_context(|| {
        format!(
            "{name} is not in {folders:?}: run tests/run, or cargo build --profile sim -p \
             headwater-agent -p headwater-collector and set HEADWATER_BIN to its folder"
        )
    })
}

/// A loopback port that was free a moment ago.
///
/// # Errors
/// When the machine has none.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// Waits until `look` gives a value.
///
/// # Errors
/// After [`PATIENCE`], naming `what`.
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    wait_while_moving(what, || Ok((look()?, ())))
}

/// As [`wait_for`], but patience begins anew whenever the second thing that `look` sees changes:
/// for work of any size that says how far it is.
///
/// # Errors
/// When `look` fails, or for [`PATIENCE`] sees no change.
pub fn wait_while_moving<T, P: PartialEq>(
    what: &str,
    mut look: impl FnMut() -> Result<(Option<T>, P)>,
) -> Result<T> {
    let tries = PATIENCE.as_millis() / LOOK_EVERY.as_millis();
    let (mut left, mut last) = (tries, None);
    while left > 0 {
        let (found, progress) = look()?;
        if let Some(value) = found {
            return Ok(value);
        }
        left -= 1;
        if last.as_ref() != Some(&progress) {
            (left, last) = (tries, Some(progress));
        }
        std::thread::sleep(LOOK_EVERY);
    }
    bail!("waited {} s in vain for {what}", PATIENCE.as_secs())
}

/// A process of ours; killed when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    log: PathBuf,
    child: Child,
}

impl Process {
    /// Starts `command` with both outputs appended to `<folder>/<name>.log`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(name: &str, folder: &Path, command: &mut Command) -> Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let out = File::options().create(true).append(true).open(&log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        Ok(Self {
            name: name.to_owned(),
            log,
            child,
        })
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has written so far.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn output(&self) -> Result<String> {
        Ok(String::from_utf8_lossy(&std::fs::read(&self.log)?).into_owned())
    }

    /// Ends it at once, as a power cut ends a process.
    ///
    /// # Errors
    /// When it cannot be signalled.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks it to stop (SIGTERM) and waits for its end.
    ///
    /// # Errors
    /// When it does not end in time; its log is in the message.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        self.signal("TERM")?;
        self.wait()
    }

    /// Sends it a signal by name, for example `STOP`.
    ///
    /// # Errors
    /// When `kill` fails.
    pub fn signal(&self, name: &str) -> Result<()> {
        let status = Command::new("kill")
            .args(["-s", name, &self.id().to_string()])
            .status()?;
        if !status.success() {
            bail!("cannot send {name} to {}", self.name);
        }
        Ok(())
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it does not come in time; its log is in the message.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        let (name, log) = (self.name.clone(), self.log.clone());
        let child = &mut self.child;
        wait_for("the end of a process", || Ok(child.try_wait()?)).with_context(|| {
            format!(
                "{name} said:\n{}",
                std::fs::read_to_string(&log).unwrap_or_default()
            )
        })
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Processor time that it has used, in seconds, from `/proc`.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn cpu_seconds(&self) -> Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.id()))?;
        // The name in parentheses may hold spaces; after it, fields 14 and 15 of proc(5) are the
        // 12th and 13th.
        let (_, fields) = stat.rsplit_once(')').context("no name in stat")?;
        let mut times = fields.split_whitespace().skip(11).map(str::parse::<u32>);
        let (user, system) = times.next().zip(times.next()).context("stat is short")?;
        Ok((f64::from(user?) + f64::from(system?)) / CLOCK_TICKS_PER_SECOND)
    }

    /// Bytes that it has caused to be written to disks, from `/proc`.
    ///
    /// # Errors
    /// When the process is gone, or the kernel does not count.
    pub fn disk_written_bytes(&self) -> Result<u64> {
        let io = std::fs::read_to_string(format!("/proc/{}/io", self.id()))?;
        let line = io
            .lines()
            .find_map(|line| line.strip_prefix("write_bytes: "));
        Ok(line.context("no write_bytes")?.parse()?)
    }

    /// Resident memory in KiB, from `/proc`.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn resident_kib(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id()))?;
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .context("no VmRSS")?;
        Ok(line
            .split_whitespace()
            .nth(1)
            .context("VmRSS is empty")?
            .parse()?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Already ended is as good as killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Body of an HTTP/1.1 GET on loopback, with its status code.
///
/// # Errors
/// When the server does not answer, or not in HTTP.
pub fn http_get(address: SocketAddr, path: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .context("the answer has no head")?;
    let status = head
        .split_whitespace()
        .nth(1)
        .context("the answer has no status")?;
    let body = if head
        .to_ascii_lowercase()
        .contains("transfer-encoding: chunked")
    {
        unchunk(body)
    } else {
        body.to_owned()
    };
    Ok((status.parse()?, body))
}

fn unchunk(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((length, rest)) = body.split_once("\r\n") {
        let length = usize::from_str_radix(length.trim(), 16).unwrap_or(0);
        if length == 0 || rest.len() < length {
            break;
        }
        whole.push_str(&rest[..length]);
        body = rest[length..].trim_start_matches("\r\n");
    }
    whole
}

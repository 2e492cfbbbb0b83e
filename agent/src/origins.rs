//! The names that this device had. Records belong to the name under which they were numbered, so each name has a
//! folder of its own in the spool's, and what an earlier one stored is sent under that name, over a connection of
//! its own, until the collector has committed it; then its folder goes.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use headwater_program::entropy::random;
use headwater_proto::ids::DeviceId;
use headwater_proto::topic::Escaped;
use headwater_spool::RealDisk;
use sha2::{Digest as _, Sha256};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::clock::{Clock, wall_error};
use crate::config::Config;
use crate::desk;
use crate::pipeline::engine::{Engine, Event, Settings, strays};
use crate::pipeline::record::{Cursor, SaidBy, Stray};
use crate::source::Stop;
use crate::source::begun::replace;
use crate::status::Waiting;
use crate::uplink::{LINK_EVENTS, LinkEvent, mqtt::Link};

/// Most earlier names whose records are sent in one life of the agent; the next one sends those of others.
pub const MAX_EARLIER: usize = 16;
/// Begins the name of a device's folder.
const PREFIX: &str = "of-";
/// Longest name of a folder that spells a device id; others have a hash.
const MAX_SPELLED_BYTES: usize = 128;
/// The file in a folder that has the device id.
const NAME_FILE: &str = "device";
/// The file in a folder that has the cursors of sources of earlier names whose folders have gone.
const STRAYS_FILE: &str = "strays";
/// Most of them; the oldest are forgotten.
pub const MAX_STRAYS: usize = 256;
/// Begins the name of a folder while it is removed.
const GONE: &str = "gone-";
/// How long a connection has to end.
const LEAVE: Duration = Duration::from_secs(1);
/// How long to wait where there is nothing else to wait for.
const IDLE_MS: u64 = 60_000;

/// The folder of a device's spool within `spool`.
#[must_use]
pub fn home(spool: &Path, device: &DeviceId) -> PathBuf {
    let spelled = Escaped(device.as_str()).to_string();
    if spelled.len() <= MAX_SPELLED_BYTES {
        return spool.join(format!("{PREFIX}{spelled}"));
    }
    let hash = Sha256::digest(device.as_str());
    let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    // No id that is spelled has this sign.
    spool.join(format!("{PREFIX}#{hash}"))
}

/// Makes the folder of a device, and notes there whose it is.
///
/// # Errors
/// The disk's.
pub fn claim(home: &Path, device: &DeviceId) -> io::Result<()> {
    if fs::read(home.join(NAME_FILE)).is_ok_and(|name| name == device.as_str().as_bytes()) {
        return Ok(());
    }
    fs::create_dir_all(home)?;
    replace(home, NAME_FILE, device.as_str().as_bytes())?;
    let above = home.parent().filter(|above| !above.as_os_str().is_empty());
    above.map_or(Ok(()), |above| File::open(above)?.sync_all())
}

/// The other devices that have a folder in `spool`, by name. What a removal left half-way is removed.
///
/// # Errors
/// The disk's.
pub fn earlier(spool: &Path, own: &DeviceId) -> io::Result<Vec<(DeviceId, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(spool)? {
        let entry = entry?;
        let folder = entry.file_name();
        if folder.to_string_lossy().starts_with(GONE) {
            fs::remove_dir_all(entry.path())?;
        }
        if !folder.to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        let name = fs::read_to_string(entry.path().join(NAME_FILE)).ok();
        match name.and_then(|name| DeviceId::new(&name).ok()) {
            Some(device) if device == *own => {}
            Some(device) => found.push((device, entry.path())),
            // Its first start was cut short before it stored anything, or its file is damaged.
            None => tracing::warn!(
                "nothing says whose spool {} is: it is left as it is; write the device id into its file {NAME_FILE}",
                entry.path().display()
            ),
        }
    }
    found.sort();
    Ok(found)
}

/// Removes a folder of which nothing is needed any more; a kill half-way leaves none that looks like a spool.
fn remove(home: &Path) -> io::Result<()> {
    let name = home.file_name().unwrap_or_default().to_string_lossy();
    let gone = home.with_file_name(format!("{GONE}{name}"));
    fs::rename(home, &gone)?;
    if let Some(spool) = home.parent() {
        File::open(spool)?.sync_all()?;
    }
    fs::remove_dir_all(gone)
}

/// Where sources stopped whose records an earlier name stored.
///
/// - `home`: the folder of a device; a file there keeps them when the earlier one's folder has gone.
fn kept_strays(home: &Path) -> Vec<Stray> {
    let text = match fs::read_to_string(home.join(STRAYS_FILE)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            let home = home.display();
            tracing::error!(
                "cannot read {STRAYS_FILE} in {home}: {error}; sources with a new name may begin anew"
            );
            return Vec::new();
        }
    };
    let line = |line: &str| {
        let mut parts = line.splitn(4, ' ');
        let mut number = || parts.next()?.parse().ok();
        let (major, minor, tag) = (number()?, number()?, number()?);
        let cursor = Cursor { major, minor, tag };
        let name = parts.next()?.to_owned();
        Some(Stray {
            name,
            cursor,
            said_by: SaidBy::Spool,
        })
    };
    text.lines().filter_map(line).collect()
}

/// Keeps where sources stopped, beside what is kept already: the newest [`MAX_STRAYS`].
fn keep_strays(home: &Path, more: &[Stray]) -> io::Result<()> {
    let mut all = kept_strays(home);
    all.retain(|known| !more.contains(known));
    all.extend_from_slice(more);
    let from = all.len().saturating_sub(MAX_STRAYS);
    let text = all.iter().skip(from).map(|Stray { name, cursor, .. }| {
        let Cursor { major, minor, tag } = cursor;
        format!("{major} {minor} {tag} {name}\n")
    });
    replace(home, STRAYS_FILE, text.collect::<String>().as_bytes())
}

/// The spool of an earlier name.
struct Spool {
    home: PathBuf,
    engine: Engine<RealDisk>,
}

/// The spools of a device's earlier names, and where their sources stopped.
pub struct Earlier {
    /// The device's own folder.
    home: PathBuf,
    spools: Vec<Spool>,
    strays: Vec<Stray>,
    waiting: Waiting,
}

impl Earlier {
    /// Opens the spools of all earlier names; one that cannot be opened is told, and waits.
    ///
    /// - `settings`: the agent's; of these the device and the sources do not hold.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn open(config: &Config, settings: &Settings, clock: Clock) -> anyhow::Result<Self> {
        let spool = &config.spool.dir;
        let own = home(spool, &config.device);
        let found = earlier(spool, &config.device)
            .with_context(|| format!("cannot read {}", spool.display()))?;
        let mut all = Self {
            strays: kept_strays(&own),
            home: own,
            spools: Vec::new(),
            waiting: Waiting::default(),
        };
        for (device, home) in found {
            all.strays.extend(kept_strays(&home));
            if all.spools.len() == MAX_EARLIER {
                all.waiting.add(&device);
                continue;
            }
            match all.open_one(&device, &home, settings, clock) {
                Ok(()) => {}
                Err(error) => {
                    let home = home.display();
                    tracing::warn!(%device, "what an earlier name stored is not sent, and stays in {home}: {error:#}");
                    all.waiting.add(&device);
                }
            }
        }
        Ok(all)
    }

    fn open_one(
        &mut self,
        device: &DeviceId,
        home: &Path,
        settings: &Settings,
        clock: Clock,
    ) -> anyhow::Result<()> {
        let settings = Settings {
            device: device.clone(),
            sources: Vec::new(),
            clock: wall_error(),
            ..settings.clone()
        };
        let disk = RealDisk::open(home)?;
        let engine = Engine::open(disk, settings, &mut random, clock.now())?;
        self.strays.extend(strays(&engine));
        let dead_letters = engine.dead_letter_records();
        if engine.progress().is_drained && dead_letters > 0 {
            let home = home.display();
            tracing::warn!(%device, dead_letters, "dead letters of an earlier name are in {home}; remove it when they are not needed");
            return Ok(());
        }
        self.waiting.add(device);
        self.spools.push(Spool {
            home: home.to_owned(),
            engine,
        });
        Ok(())
    }

    /// Where their sources stopped.
    #[must_use]
    pub fn strays(&self) -> &[Stray] {
        &self.strays
    }

    /// The names of which records wait.
    #[must_use]
    pub const fn waiting(&self) -> &Waiting {
        &self.waiting
    }

    /// Begins to send, each name over a connection and on a thread of its own; within a runtime, which carries
    /// the connections.
    ///
    /// # Errors
    /// If a thread cannot be started.
    pub fn send(
        self,
        config: &Config,
        password: Option<&str>,
        (clock, stop): (Clock, &Stop),
    ) -> io::Result<Drains> {
        let mut threads = Vec::new();
        for spool in self.spools {
            let Settings { device, sender, .. } = spool.engine.settings();
            let device = device.clone();
            tracing::info!(%device, "what is stored under an earlier name of this device is sent under that name");
            let password = password.map(str::to_owned);
            let link = Link::new(&config.collector, password, &device, sender.max_bundle);
            let (home, waiting, stop) = (self.home.clone(), self.waiting.clone(), stop.clone());
            let runtime = Handle::current();
            let thread = std::thread::Builder::new().name("earlier name".into());
            threads.push(thread.spawn(move || {
                match drain(spool, &home, (clock, &stop), &runtime, link) {
                    Ok(true) => waiting.remove(&device),
                    Ok(false) => {}
                    Err(error) => tracing::error!(%device, "all that an earlier name stored is in the lake, but {error:#}"),
                }
            })?);
        }
        Ok(Drains(threads))
    }
}

/// The threads that send what earlier names stored.
pub struct Drains(Vec<std::thread::JoinHandle<()>>);

impl Drains {
    /// Whether they have ended.
    #[must_use]
    pub fn are_done(&self) -> bool {
        self.0.iter().all(std::thread::JoinHandle::is_finished)
    }
}

/// Sends all that is stored in a folder; it is removed then, but for dead letters. False: the agent stops.
fn drain(
    spool: Spool,
    own_home: &Path,
    (clock, stop): (Clock, &Stop),
    runtime: &Handle,
    link: Link,
) -> anyhow::Result<bool> {
    let Spool { home, mut engine } = spool;
    let device = engine.settings().device.clone();
    let (up, publishes) = mpsc::channel(1);
    let (link_events, mut events) = mpsc::channel(LINK_EVENTS);
    let link = runtime.spawn(link.run(publishes, link_events, random()));
    let is_drained = runtime.block_on(send_all(&mut engine, &up, &mut events, (clock, stop)));
    // Without its way in the link ends its connection.
    drop(up);
    let _ = runtime.block_on(async { tokio::time::timeout(LEAVE, link).await });
    if !is_drained {
        return Ok(false);
    }
    let (mut stopped, dead_letters) = (kept_strays(&home), engine.dead_letter_records());
    stopped.extend(strays(&engine));
    drop(engine);
    keep_strays(own_home, &stopped)
        .with_context(|| format!("cannot write {STRAYS_FILE} in {}", own_home.display()))?;
    if dead_letters > 0 {
        let home = home.display();
        tracing::warn!(%device, dead_letters, "all else that an earlier name stored is in the lake; its dead letters stay in {home}");
    } else {
        remove(&home).with_context(|| format!("cannot remove {}", home.display()))?;
        tracing::info!(%device, "all that an earlier name stored is in the lake");
    }
    Ok(true)
}

/// Sends until all is committed, the ends of the epochs too. False: the agent stops before.
async fn send_all(
    engine: &mut Engine<RealDisk>,
    up: &mpsc::Sender<Vec<u8>>,
    events: &mut mpsc::Receiver<LinkEvent>,
    (clock, stop): (Clock, &Stop),
) -> bool {
    let mut has_ended = false;
    loop {
        let now = desk::look_at_clocks(engine, clock);
        desk::take_events(engine, events, now);
        engine.handle(Event::Tick, now);
        let is_blocked = desk::publish(engine, up, now);
        if engine.progress().is_drained {
            if has_ended {
                return true;
            }
            has_ended = true;
            engine.stop(now);
            continue;
        }
        let due = engine.next_wakeup().unwrap_or(now.mono.plus(IDLE_MS));
        tokio::select! {
            () = stop.stopped() => {
                if !has_ended {
                    engine.stop(clock.now());
                }
                return false;
            }
            () = tokio::time::sleep_until(clock.instant(due).into()) => {}
            permit = up.reserve(), if is_blocked => drop(permit),
            event = events.recv() => match event {
                Some(event) => desk::take_event(engine, &event, clock.now()),
                None => return false,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> DeviceId {
        DeviceId::new(text).unwrap()
    }

    #[test]
    fn each_name_has_a_folder_of_its_own_whatever_it_is_made_of() {
        let long = "/".repeat(headwater_proto::ids::MAX_DEVICE_ID_BYTES);
        let other = format!("{}x", &long[1..]);
        let names = [
            "a", "A", "..", ".", "a/b", "a%2Fb", "#", "press 7", "\u{fc}", &long, &other,
        ];
        let spool = tempfile::tempdir().unwrap();
        let homes: std::collections::BTreeSet<_> = names
            .iter()
            .map(|name| {
                let home = home(spool.path(), &id(name));
                assert_eq!(home.parent(), Some(spool.path()));
                claim(&home, &id(name)).unwrap();
                claim(&home, &id(name)).unwrap();
                home
            })
            .collect();
        assert_eq!(homes.len(), names.len());
        fs::create_dir(spool.path().join("of-unnamed")).unwrap();
        fs::create_dir(spool.path().join("lost+found")).unwrap();
        let found = earlier(spool.path(), &id("a")).unwrap();
        let mut expected: Vec<_> = names[1..].iter().map(|name| id(name)).collect();
        expected.sort();
        assert_eq!(
            found
                .iter()
                .map(|(device, _)| device.clone())
                .collect::<Vec<_>>(),
            expected
        );
        assert!(
            found
                .iter()
                .all(|(device, at)| *at == home(spool.path(), device))
        );
    }
    #[test]
    fn where_sources_of_earlier_names_stopped_outlives_their_folders() {
        let spool = tempfile::tempdir().unwrap();
        let home = home(spool.path(), &id("a"));
        claim(&home, &id("a")).unwrap();
        let stray = |n: u64| Stray {
            said_by: SaidBy::Spool,
            name: format!("log of {n}"),
            cursor: Cursor {
                major: n,
                minor: 2 * n,
                tag: u64::MAX - n,
            },
        };
        assert_eq!(kept_strays(&home), []);
        keep_strays(&home, &[stray(1), stray(2)]).unwrap();
        keep_strays(&home, &[stray(2), stray(3)]).unwrap();
        assert_eq!(kept_strays(&home), [stray(1), stray(2), stray(3)]);
        let many: Vec<_> = (0..MAX_STRAYS as u64).map(|n| stray(n + 10)).collect();
        keep_strays(&home, &many).unwrap();
        assert_eq!(kept_strays(&home), many);
    }

    #[test]
    fn a_removal_that_was_cut_off_leaves_no_spool() {
        let spool = tempfile::tempdir().unwrap();
        let old = home(spool.path(), &id("old"));
        claim(&old, &id("old")).unwrap();
        fs::create_dir(spool.path().join("gone-of-older")).unwrap();
        assert_eq!(earlier(spool.path(), &id("a")).unwrap().len(), 1);
        remove(&old).unwrap();
        assert_eq!(earlier(spool.path(), &id("a")).unwrap(), []);
        assert_eq!(fs::read_dir(spool.path()).unwrap().count(), 0);
    }
}

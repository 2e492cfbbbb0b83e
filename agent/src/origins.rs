//! The names that this device had. Records belong to the name under which they were numbered, so each name has a
//! folder of its own in the spool's, and what an earlier one stored is sent under that name, over a connection of
//! its own, until the collector has committed it; then its folder goes.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context;
use headwater_program::entropy::random;
use headwater_proto::ids::DeviceId;
use headwater_spool::RealDisk;
use sha2::{Digest as _, Sha256};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::clock::{Clock, wall_error};
use crate::config::Config;
use crate::desk;
use crate::pipeline::engine::{Engine, Event, Settings};
use crate::source::Stop;
use crate::status::Waiting;
use crate::uplink::{LINK_EVENTS, LinkEvent, mqtt::Link};

/// Most earlier names whose records are sent in one life of the agent; the next one sends those of others.
pub const MAX_EARLIER: usize = 16;
/// What the folder of a name begins with.
const PREFIX: &str = "of-";
/// Longest name of a folder that spells a device id; others have a hash.
const MAX_SPELLED_BYTES: usize = 128;
/// The file in a folder that has the device id.
const NAME_FILE: &str = "device";
/// How long to wait where there is nothing else to wait for.
const IDLE_MS: u64 = 60_000;

/// The folder of a device's spool within `spool`.
#[must_use]
pub fn home(spool: &Path, device: &DeviceId) -> PathBuf {
    let id = device.as_str();
    let spelled: String = id.bytes().map(spelled).collect();
    if spelled.len() <= MAX_SPELLED_BYTES {
        return spool.join(format!("{PREFIX}{spelled}"));
    }
    let hash = Sha256::digest(id);
    let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    // No id that is spelled has this sign.
    spool.join(format!("{PREFIX}#{hash}"))
}

/// As in a topic.
fn spelled(byte: u8) -> String {
    if byte.is_ascii_alphanumeric() || b"._-".contains(&byte) {
        char::from(byte).to_string()
    } else {
        format!("%{byte:02X}")
    }
}

/// Makes the folder of a device, and notes there whose it is.
///
/// # Errors
/// The disk's.
pub fn claim(home: &Path, device: &DeviceId) -> io::Result<()> {
    let (file, new) = (home.join(NAME_FILE), home.join("device.new"));
    if fs::read(&file).is_ok_and(|name| name == device.as_str().as_bytes()) {
        return Ok(());
    }
    fs::create_dir_all(home)?;
    let mut named = File::create(&new)?;
    named.write_all(device.as_str().as_bytes())?;
    named.sync_all()?;
    fs::rename(&new, &file)?;
    File::open(home)?.sync_all()?;
    let above = home.parent().filter(|above| !above.as_os_str().is_empty());
    above.map_or(Ok(()), |above| File::open(above)?.sync_all())
}

/// The other devices that have a folder in `spool`, by name.
///
/// # Errors
/// The disk's.
pub fn earlier(spool: &Path, own: &DeviceId) -> io::Result<Vec<(DeviceId, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(spool)? {
        let entry = entry?;
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
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

/// The thread that sends what earlier names stored, one name after the other.
pub struct Drains {
    thread: std::thread::JoinHandle<()>,
}

impl Drains {
    /// Starts it where there are earlier names; within a runtime, which carries the connection.
    ///
    /// - `settings`: the agent's; of these the device and the sources do not hold.
    ///
    /// # Errors
    /// If the spool's folder cannot be read, or a thread not be started.
    pub fn start(
        config: &Config,
        settings: Settings,
        password: Option<String>,
        (clock, stop): (Clock, Stop),
        waiting: &Waiting,
    ) -> anyhow::Result<Option<Self>> {
        let spool = &config.spool.dir;
        let names = earlier(spool, &config.device)
            .with_context(|| format!("cannot read {}", spool.display()))?;
        if names.is_empty() {
            return Ok(None);
        }
        names.iter().for_each(|(device, _)| waiting.add(device));
        let (config, waiting, runtime) = (config.clone(), waiting.clone(), Handle::current());
        let drain = move || {
            for (device, home) in names.into_iter().take(MAX_EARLIER) {
                tracing::info!(%device, "what is stored under an earlier name of this device is sent under that name");
                let max_bundle = settings.sender.max_bundle;
                let link = Link::new(&config.collector, password.clone(), &device, max_bundle);
                let settings = Settings {
                    device: device.clone(),
                    sources: Vec::new(),
                    clock: wall_error(),
                    ..settings.clone()
                };
                match drain(settings, &home, (clock, &stop), &runtime, link) {
                    Ok(true) => waiting.remove(&device),
                    Ok(false) => return,
                    Err(error) => tracing::warn!(
                        %device,
                        "what an earlier name stored is not sent now, and stays in {}: {error:#}",
                        home.display()
                    ),
                }
            }
        };
        let thread = std::thread::Builder::new().name("earlier names".into());
        Ok(Some(Self {
            thread: thread.spawn(drain)?,
        }))
    }

    /// Whether it has nothing left to do.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.thread.is_finished()
    }
}

/// Sends all that is stored in a folder; it is removed then, but for dead letters. False: the agent stops.
fn drain(
    settings: Settings,
    home: &Path,
    (clock, stop): (Clock, &Stop),
    runtime: &Handle,
    link: Link,
) -> anyhow::Result<bool> {
    let device = settings.device.clone();
    let mut engine = Engine::open(RealDisk::open(home)?, settings, &mut random, clock.now())?;
    let (up, publishes) = mpsc::channel(1);
    let (link_events, mut events) = mpsc::channel(LINK_EVENTS);
    let link = runtime.spawn(link.run(publishes, link_events, random()));
    let is_drained = runtime.block_on(send_all(&mut engine, &up, &mut events, (clock, stop)));
    link.abort();
    let dead_letters = engine.dead_letter_records();
    drop(engine);
    if is_drained && dead_letters > 0 {
        tracing::warn!(
            %device,
            dead_letters,
            "all else that an earlier name stored is in the lake; its dead letters stay in {}",
            home.display()
        );
    } else if is_drained {
        fs::remove_dir_all(home).with_context(|| format!("cannot remove {}", home.display()))?;
        tracing::info!(%device, "all that an earlier name stored is in the lake");
    }
    Ok(is_drained)
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
        let now = clock.now();
        if engine.wants_clock(now) {
            engine.handle(Event::Clock(wall_error()), now);
        }
        while let Ok(event) = events.try_recv() {
            engine.handle(desk::event_of(&event), now);
        }
        engine.handle(Event::Tick, now);
        let mut is_blocked = false;
        loop {
            let Ok(permit) = up.try_reserve() else {
                is_blocked = true;
                break;
            };
            match engine.next_publish(now) {
                Some(bytes) => permit.send(bytes),
                None => break,
            }
        }
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
                Some(event) => engine.handle(desk::event_of(&event), clock.now()),
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
}

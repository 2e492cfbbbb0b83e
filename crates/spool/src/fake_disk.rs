//! A disk in memory that forgets, tears and fails as a real one may.
//!
//! - Written bytes become durable by `sync_data` of their file. A power cut keeps of the rest, by
//!   seed: a prefix, torn at 512 bytes; or blocks of 512 bytes or 4 KiB at random; or nothing.
//! - Names change in order, as a journaling file system has them: durable up to the last `sync_dir`,
//!   or the last sync of a file whose length had changed; of later changes a cut keeps a prefix.
//! - A failed sync loses the file's unsynced bytes for good, though they can still be read; the next
//!   sync succeeds and stores nothing of them.
//!
//! Handles are clones of one shared state.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::disk::{Disk, DiskFile, DiskStats, FileSize, Space};
use crate::fake_medium::{Dice, Inode, PAGE_BYTES, Write, to_usize};

/// Size of a disk without a limit; large enough that no test meets it.
const ROOMY_BYTES: u64 = 1 << 40;

#[derive(Debug, Clone)]
enum Rename {
    Set { name: String, inode: u64 },
    Move { from: String, to: String },
    Remove { name: String },
}

#[derive(Debug, Clone, Default)]
struct State {
    inodes: BTreeMap<u64, Inode>,
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    renames: Vec<Rename>,
    next_inode: u64,
    capacity: Option<u64>,
    operations: u64,
    crash_at: Option<u64>,
    fail_at: Option<u64>,
    fail_sync_in: Option<u64>,
    lying: bool,
    stats: DiskStats,
}

fn apply_rename(names: &mut BTreeMap<String, u64>, rename: &Rename) {
    match rename {
        Rename::Set { name, inode } => {
            names.insert(name.clone(), *inode);
        }
        Rename::Move { from, to } => {
            if let Some(inode) = names.remove(from) {
                names.insert(to.clone(), inode);
            }
        }
        Rename::Remove { name } => {
            names.remove(name);
        }
    }
}

fn failure(what: &str) -> io::Error {
    io::Error::other(format!("the fake disk {what}"))
}

impl State {
    /// Counts an operation, and fails it if it is its turn.
    fn operate(&mut self) -> io::Result<()> {
        let turn = self.operations;
        self.operations += 1;
        if self.crash_at.is_some_and(|at| turn >= at) {
            return Err(failure("has crashed"));
        }
        if self.fail_at == Some(turn) {
            self.fail_at = None;
            return Err(failure("fails this operation"));
        }
        Ok(())
    }

    fn rename(&mut self, rename: Rename) {
        apply_rename(&mut self.names, &rename);
        self.renames.push(rename);
    }

    fn sync_names(&mut self) {
        for rename in self.renames.drain(..) {
            apply_rename(&mut self.durable_names, &rename);
        }
        let (names, durable) = (&self.names, &self.durable_names);
        self.inodes
            .retain(|i, _| names.values().chain(durable.values()).any(|held| held == i));
    }

    fn used(&self) -> u64 {
        let sizes = self.names.values().filter_map(|i| self.inodes.get(i));
        sizes
            .map(|inode| (inode.cached.len() as u64).div_ceil(PAGE_BYTES) * PAGE_BYTES)
            .sum()
    }

    /// Checks that a file may grow to `len`.
    fn grow(&self, inode: u64, len: u64) -> io::Result<()> {
        let Some(capacity) = self.capacity else {
            return Ok(());
        };
        let now = self.inodes.get(&inode).map_or(0, |i| i.cached.len() as u64);
        let blocks = |len: u64| len.div_ceil(PAGE_BYTES) * PAGE_BYTES;
        let more = blocks(len).saturating_sub(blocks(now));
        if more > 0 && self.used() + more > capacity {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    fn inode(&mut self, inode: u64) -> io::Result<&mut Inode> {
        self.inodes
            .get_mut(&inode)
            .ok_or_else(|| failure("has removed this file"))
    }
}

/// A folder in memory. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct FakeDisk {
    state: Arc<Mutex<State>>,
}

impl FakeDisk {
    /// An empty folder on a disk without a limit.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The disk as a power cut at this moment leaves it; `self` stays as it is. The same seed over
    /// the same history gives the same disk. Faults that were set are gone; the capacity stays.
    #[must_use]
    pub fn power_cut(&self, seed: u64) -> Self {
        let state = self.state();
        let mut dice = Dice(seed);
        let mut names = state.durable_names.clone();
        let kept = dice.below(state.renames.len() as u64 + 1);
        for rename in state.renames.iter().take(to_usize(kept)) {
            apply_rename(&mut names, rename);
        }
        let mut inodes = BTreeMap::new();
        for &number in names.values() {
            if let Some(inode) = state.inodes.get(&number) {
                let durable = inode.after_cut(&mut dice);
                let cached = durable.clone();
                inodes.insert(
                    number,
                    Inode {
                        cached,
                        durable,
                        pending: Vec::new(),
                    },
                );
            }
        }
        let after = State {
            inodes,
            durable_names: names.clone(),
            names,
            next_inode: state.next_inode,
            capacity: state.capacity,
            ..State::default()
        };
        Self {
            state: Arc::new(Mutex::new(after)),
        }
    }

    /// The disk as the death of its process leaves it: everything written is there.
    #[must_use]
    pub fn process_killed(&self) -> Self {
        let mut after = self.state().clone();
        (after.crash_at, after.fail_at, after.fail_sync_in) = (None, None, None);
        Self {
            state: Arc::new(Mutex::new(after)),
        }
    }

    /// Operations so far, reads and failures included.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// From the `n`-th operation from now on (0 is the next) everything fails. A write that fails so
    /// may still be found after the power cut.
    pub fn crash_after(&self, n: u64) {
        let mut state = self.state();
        state.crash_at = Some(state.operations + n);
    }

    /// Whether operations fail since [`FakeDisk::crash_after`].
    #[must_use]
    pub fn has_crashed(&self) -> bool {
        let state = self.state();
        state.crash_at.is_some_and(|at| state.operations > at)
    }

    /// The `n`-th operation from now on (0 is the next) fails, once.
    pub fn fail_operation(&self, n: u64) {
        let mut state = self.state();
        state.fail_at = Some(state.operations + n);
    }

    /// The `n`-th sync of a file from now on (0 is the next) fails, once, and loses what it should
    /// have stored.
    pub fn fail_sync(&self, n: u64) {
        self.state().fail_sync_in = Some(n);
    }

    /// Syncs answer without doing anything: for showing that a test would notice.
    pub fn set_lying(&self, lying: bool) {
        self.state().lying = lying;
    }

    /// Limits the bytes of all files together; `None` is no limit.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state().capacity = bytes;
    }

    /// What was written and synced.
    #[must_use]
    pub fn stats(&self) -> DiskStats {
        self.state().stats
    }

    /// Bytes that the files take, in blocks.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.state().used()
    }

    /// Flips bits of a file's byte, as an ageing medium does. False if there is no such byte.
    pub fn rot(&self, name: &str, offset: u64, mask: u8) -> bool {
        let mut state = self.state();
        let Some(&inode) = state.names.get(name) else {
            return false;
        };
        let Some(inode) = state.inodes.get_mut(&inode) else {
            return false;
        };
        let at = to_usize(offset);
        if at >= inode.cached.len() {
            return false;
        }
        inode.cached[at] ^= mask;
        if let Some(byte) = inode.durable.get_mut(at) {
            *byte ^= mask;
        }
        true
    }
}

impl Disk for FakeDisk {
    type File = FakeFile;

    fn list(&self) -> io::Result<Vec<String>> {
        let mut state = self.state();
        state.operate()?;
        Ok(state.names.keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<FakeFile> {
        let mut state = self.state();
        state.operate()?;
        let inode = state.names.get(name).copied();
        let inode = inode.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        Ok(FakeFile {
            disk: self.clone(),
            inode,
        })
    }

    fn create(&self, name: &str) -> io::Result<FakeFile> {
        let mut state = self.state();
        state.operate()?;
        let inode = state.next_inode;
        state.next_inode += 1;
        state.inodes.insert(inode, Inode::default());
        state.rename(Rename::Set {
            name: name.to_owned(),
            inode,
        });
        Ok(FakeFile {
            disk: self.clone(),
            inode,
        })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        state.operate()?;
        if !state.names.contains_key(from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.rename(Rename::Move {
            from: from.to_owned(),
            to: to.to_owned(),
        });
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.operate()?;
        if !state.names.contains_key(name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.rename(Rename::Remove {
            name: name.to_owned(),
        });
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut state = self.state();
        state.operate()?;
        state.stats.dir_syncs += 1;
        if !state.lying {
            state.sync_names();
        }
        Ok(())
    }

    fn space(&self) -> io::Result<Space> {
        let mut state = self.state();
        state.operate()?;
        let total = state.capacity.unwrap_or(ROOMY_BYTES);
        Ok(Space {
            total,
            available: total.saturating_sub(state.used()),
        })
    }
}

/// A file of a [`FakeDisk`].
#[derive(Debug)]
pub struct FakeFile {
    disk: FakeDisk,
    inode: u64,
}

impl DiskFile for FakeFile {
    fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.disk.state();
        state.operate()?;
        let bytes = &state.inode(self.inode)?.cached;
        let from = to_usize(offset).min(bytes.len());
        let len = out.len().min(bytes.len() - from);
        out[..len].copy_from_slice(&bytes[from..from + len]);
        Ok(len)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        state.stats.writes += 1;
        state.stats.bytes_written += bytes.len() as u64;
        let write = Write::Bytes {
            at: offset,
            bytes: bytes.to_vec(),
        };
        let crashed = state.crash_at.is_some_and(|at| state.operations > at);
        if let Err(error) = state.operate() {
            // The operation that the crash meets may have been on its way to the medium.
            if !crashed {
                state.inode(self.inode)?.write(write);
            }
            return Err(error);
        }
        state.grow(self.inode, offset + bytes.len() as u64)?;
        state.inode(self.inode)?.write(write);
        Ok(())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        state.operate()?;
        state.grow(self.inode, len)?;
        let inode = state.inode(self.inode)?;
        if (inode.cached.len() as u64) < len {
            inode.write(Write::Length(len));
        }
        Ok(())
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        state.operate()?;
        state.grow(self.inode, len)?;
        state.inode(self.inode)?.write(Write::Length(len));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        state.operate()?;
        state.stats.syncs += 1;
        match &mut state.fail_sync_in {
            Some(0) => {
                state.fail_sync_in = None;
                state.inode(self.inode)?.pending.clear();
                return Err(failure("fails this sync"));
            }
            Some(left) => *left -= 1,
            None => {}
        }
        if state.lying {
            return Ok(());
        }
        let inode = state.inode(self.inode)?;
        let resized = inode.cached.len() != inode.durable.len();
        inode.sync();
        if resized {
            state.sync_names();
        }
        Ok(())
    }

    fn size(&self) -> io::Result<FileSize> {
        let mut state = self.disk.state();
        state.operate()?;
        let len = state.inode(self.inode)?.cached.len() as u64;
        Ok(FileSize {
            len,
            allocated: len.div_ceil(PAGE_BYTES) * PAGE_BYTES,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(disk: &FakeDisk, name: &str) -> Vec<u8> {
        let file = disk.open(name).unwrap();
        let mut out = vec![0; 20_000];
        let len = file.read_at(&mut out, 0).unwrap();
        out.truncate(len);
        out
    }

    #[test]
    fn a_power_cut_keeps_what_was_synced_and_any_part_of_the_rest() {
        let disk = FakeDisk::new();
        let file = disk.create("a").unwrap();
        file.write_at(&[1; 8192], 0).unwrap();
        file.sync_data().unwrap();
        disk.sync_dir().unwrap();
        file.write_at(&[2; 8192], 0).unwrap();
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..300 {
            let bytes = read(&disk.power_cut(seed), "a");
            assert_eq!(bytes.len(), 8192);
            for sector in bytes.chunks(512) {
                assert!(sector.iter().all(|b| *b == sector[0]), "a sector is whole");
            }
            seen.insert(bytes.iter().filter(|b| **b == 2).count() / 512);
        }
        assert!(
            seen.contains(&0) && seen.contains(&16) && seen.len() > 6,
            "{seen:?}"
        );
    }

    #[test]
    fn names_come_back_in_order() {
        let disk = FakeDisk::new();
        disk.create("a").unwrap();
        disk.sync_dir().unwrap();
        disk.rename("a", "b").unwrap();
        disk.create("c").unwrap();
        let lists: std::collections::BTreeSet<_> = (0..50)
            .map(|seed| disk.power_cut(seed).list().unwrap().join(" "))
            .collect();
        assert_eq!(lists.into_iter().collect::<Vec<_>>(), ["a", "b", "b c"]);
    }

    #[test]
    fn after_a_failed_sync_the_next_one_stores_nothing_of_it() {
        let disk = FakeDisk::new();
        let file = disk.create("a").unwrap();
        disk.sync_dir().unwrap();
        disk.fail_sync(0);
        file.write_at(b"lost", 0).unwrap();
        file.sync_data().unwrap_err();
        file.sync_data().unwrap();
        assert_eq!(read(&disk, "a"), b"lost");
        assert!((0..50).all(|seed| read(&disk.power_cut(seed), "a").is_empty()));
    }

    #[test]
    fn a_full_disk_refuses_and_goes_on_after_room_was_made() {
        let disk = FakeDisk::new();
        disk.set_capacity(Some(8192));
        let file = disk.create("a").unwrap();
        file.allocate(8192).unwrap();
        let other = disk.create("b").unwrap();
        let error = other.write_at(b"x", 0).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        disk.remove("a").unwrap();
        other.write_at(b"x", 0).unwrap();
    }

    #[test]
    fn a_crash_fails_everything_from_its_operation_on() {
        let disk = FakeDisk::new();
        let file = disk.create("a").unwrap();
        disk.sync_dir().unwrap();
        disk.crash_after(1);
        file.write_at(b"1", 0).unwrap();
        assert!(!disk.has_crashed());
        file.write_at(b"2", 0).unwrap_err();
        file.sync_data().unwrap_err();
        disk.list().unwrap_err();
        assert!(disk.has_crashed());
        disk.power_cut(1).list().unwrap();
    }
}

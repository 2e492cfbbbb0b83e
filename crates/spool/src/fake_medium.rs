//! Core: what a power cut leaves of one file of a fake disk.

const SECTOR_BYTES: u64 = 512;
/// Blocks of the page cache.
pub(crate) const PAGE_BYTES: u64 = 4096;

/// A small, well mixed generator: SplitMix64, after Steele, Lea and Flood, OOPSLA 2014.
#[derive(Debug, Clone)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    pub(crate) fn coin(&mut self) -> bool {
        self.next() & 1 == 1
    }
}

#[derive(Debug, Clone)]
pub(crate) enum Write {
    Bytes { at: u64, bytes: Vec<u8> },
    Length(u64),
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Inode {
    pub(crate) cached: Vec<u8>,
    pub(crate) durable: Vec<u8>,
    pub(crate) pending: Vec<Write>,
}

fn apply_write(bytes: &mut Vec<u8>, write: &Write) {
    match write {
        Write::Bytes { at, bytes: new } => put(bytes, *at, new),
        Write::Length(len) => bytes.resize(to_usize(*len), 0),
    }
}

fn put(bytes: &mut Vec<u8>, at: u64, new: &[u8]) {
    let at = to_usize(at);
    if bytes.len() < at + new.len() {
        bytes.resize(at + new.len(), 0);
    }
    bytes[at..at + new.len()].copy_from_slice(new);
}

pub(crate) fn to_usize(n: u64) -> usize {
    usize::try_from(n).expect("a fake file fits in memory")
}

impl Inode {
    pub(crate) fn write(&mut self, write: Write) {
        apply_write(&mut self.cached, &write);
        self.pending.push(write);
    }

    pub(crate) fn sync(&mut self) {
        for write in self.pending.drain(..) {
            apply_write(&mut self.durable, &write);
        }
    }

    /// What is there after the power went.
    pub(crate) fn after_cut(&self, dice: &mut Dice) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        let count = self.pending.len() as u64;
        match dice.below(3) {
            0 => {
                let whole = dice.below(count + 1);
                for (i, write) in (0..count).zip(&self.pending) {
                    match write {
                        _ if i < whole => apply_write(&mut bytes, write),
                        Write::Bytes { at, bytes: new } if i == whole => {
                            let sectors = (new.len() as u64).div_ceil(SECTOR_BYTES);
                            let end = (at / SECTOR_BYTES + dice.below(sectors + 1)) * SECTOR_BYTES;
                            let len = to_usize(end.saturating_sub(*at)).min(new.len());
                            put(&mut bytes, *at, &new[..len]);
                        }
                        Write::Bytes { .. } | Write::Length(_) => break,
                    }
                }
            }
            1 => {
                let block = if dice.coin() {
                    SECTOR_BYTES
                } else {
                    PAGE_BYTES
                };
                for write in &self.pending {
                    match write {
                        Write::Bytes { at, bytes: new } => {
                            keep_blocks(&mut bytes, *at, new, block, dice)
                        }
                        Write::Length(_) if dice.coin() => apply_write(&mut bytes, write),
                        Write::Length(_) => {}
                    }
                }
            }
            _ => {}
        }
        bytes
    }
}

fn keep_blocks(bytes: &mut Vec<u8>, at: u64, new: &[u8], block: u64, dice: &mut Dice) {
    let end = at + new.len() as u64;
    let mut from = at;
    while from < end {
        let to = ((from / block + 1) * block).min(end);
        if dice.coin() {
            put(bytes, from, &new[to_usize(from - at)..to_usize(to - at)]);
        }
        from = to;
    }
}

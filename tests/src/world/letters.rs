//! Core: dead letters of the world's sinks, which outlive the collector as its disk does.

use std::collections::BTreeMap;

use headwater_collector::interpret::Depth;
use headwater_collector::pipeline::undated::ClockBook;
use headwater_collector::sink::letters::{Letters, list, read};
use headwater_collector::sink::worker::Commit;
use headwater_proto::time::UnixMicros;
use headwater_spool::{Disk, FakeDisk, Reader};

use super::course::Faults;
use super::dice::{Death, Dice};
use super::found::Found;
use super::given::Given;

/// A folder of dead letters for each sink that refused something.
#[derive(Default)]
pub struct MailRoom {
    folders: BTreeMap<String, FakeDisk>,
    /// A letter could not be kept, since the journal did not give it: counted, and the sink goes on.
    has_lost: bool,
}

impl MailRoom {
    /// Copies what a sink refused, as its thread does before custody hears of it.
    pub fn keep<D: Disk>(
        &mut self,
        sink: &str,
        commit: &Commit,
        journal: &mut Reader<D>,
        (at, clock): (UnixMicros, &ClockBook),
    ) {
        let Some(refusal) = commit.refusal(at, clock) else {
            return;
        };
        let disk = self.folders.entry(sink.to_owned()).or_default();
        let letters = Letters::open(disk.clone());
        let is_kept = letters.is_ok_and(|mut letters| letters.keep(&refusal, journal).is_ok());
        self.has_lost |= !is_kept;
    }

    /// The collector died.
    pub fn die(&mut self, death: Death, dice: &mut Dice) {
        for disk in self.folders.values_mut() {
            *disk = match death {
                Death::Killed => disk.process_killed(),
                Death::PowerCut => disk.power_cut(dice.bits()),
            };
        }
    }

    /// Every record that the lake names as refused by a sink is one letter of it, and says what the lake
    /// says. Returns how many letters there are.
    pub fn check(&self, found: &Found, faults: &mut Faults) -> u64 {
        let mut count = 0;
        for (sink, lacks) in &found.lacks {
            let mut letters = BTreeMap::new();
            if let Some(disk) = self.folders.get(sink) {
                let files = list(disk).unwrap_or_default();
                for name in files.keys() {
                    let read = read(disk, name, Depth::Samples, &mut |_, item| {
                        let Some(item) = item else { return };
                        for (stream, range) in item.covers {
                            count += 1;
                            for seq in range.first..range.next {
                                let number = (stream.clone(), seq);
                                let letter: &mut Given = letters.entry(number).or_default();
                                // A loss that the collector names may have the number of a record.
                                letter.merge(&Given::of(item));
                            }
                        }
                    });
                    if let Err(error) = read {
                        faults.push(format!("letters of sink {sink}: {name}: {error}"));
                    }
                }
            }
            for number in lacks.refused.iter().filter(|_| !self.has_lost) {
                let rows = found.numbers.get(number);
                match letters.get(number) {
                    // The journal did not hold it any more: the sink had taken it before it was left behind, and
                    // refused it after that.
                    None if lacks.skipped.get(&number.0).is_some_and(|all| all.contains(number.1)) => {}
                    // A sink may refuse what tells of a loss, and take the record when it comes after all.
                    Some(letter) if letter.is_empty() => {}
                    Some(letter) if rows.is_none_or(|rows| rows == letter) => {}
                    letter => faults.push(format!(
                        "record {number:?}, which sink {sink} refused, is {letter:?} as a dead letter and \
                         {rows:?} in the lake"
                    )),
                }
            }
        }
        count
    }
}

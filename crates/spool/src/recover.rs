//! Core: what becomes of each file that a start finds.
//!
//! No file of its own says what is there: each segment speaks for itself, and the one written after
//! it says where it ends. Only a segment of which neither is known is scanned: in a crash, the newest.

use crate::format::{Footer, Header, HeaderError, RECORD_HEADER_BYTES};

/// What a start found and did.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize)]
pub struct Recovery {
    /// Segments kept.
    pub segments: usize,
    /// The position that the next record takes.
    pub next: u64,
    /// Tails that a crash left, cut after their last good record.
    pub cut: Vec<Cut>,
    /// Files without a record or a snapshot, removed.
    pub dropped: Vec<String>,
    /// Files kept but not read, and why. They count in the quota and can be released.
    pub unreadable: Vec<Unreadable>,
    /// Files that could not be looked at, cut or removed; the start went on without.
    pub trouble: Vec<String>,
    /// Segments among them whose records are hidden from this start, and may be there at the next.
    pub hidden: Vec<String>,
    /// Segments among them whose last records are read now and may be gone after a power cut: they
    /// could not be synced. Nobody may be told that these are durable.
    pub unsynced: Vec<String>,
}

/// A tail that was cut.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Cut {
    /// The segment's number.
    pub segment: u64,
    /// Position after its last record.
    pub next: u64,
    /// Bytes after its last record that may not be zero; 0 where nothing was written after it.
    pub bytes: u64,
}

/// A file that is kept but not read.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Unreadable {
    /// The file.
    pub file: String,
    /// Why, for the operator.
    pub why: String,
}

/// A segment file as a start finds it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found {
    /// Its number, by its name.
    pub(crate) id: u64,
    pub(crate) len: u64,
    pub(crate) header: Result<Header, HeaderError>,
    pub(crate) footer: Option<Footer>,
}

/// What becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Its records end where somebody wrote down that they end.
    Sealed { next: u64, end: u64 },
    /// Records are scanned from `Header::records_at` on; the file is cut after the last good one.
    Scan,
    /// Its header is lost: any record in it is looked for, and the file goes if there is none.
    Rescue,
    /// A file renamed for recycling and not yet written: it goes.
    Stale,
    /// Of another version: kept, never read. Its positions end before `next`.
    Foreign { version: u16, first: u64, next: u64 },
}

/// Judges each of `found`, which are in order of their numbers.
pub(crate) fn judge(found: &[Found]) -> Vec<Fate> {
    let newer = found.iter().skip(1).map(Some).chain([None]);
    found
        .iter()
        .zip(newer)
        .map(|(file, newer)| fate(file, newer))
        .collect()
}

fn fate(file: &Found, newer: Option<&Found>) -> Fate {
    let header = match file.header {
        Ok(header) if header.id == file.id => header,
        Ok(_) => return Fate::Stale,
        Err(HeaderError::Version { version, id, first }) if id == file.id => {
            let most = file.len / RECORD_HEADER_BYTES as u64;
            return Fate::Foreign {
                version,
                first,
                next: first.saturating_add(most),
            };
        }
        Err(HeaderError::Version { .. }) => return Fate::Stale,
        Err(HeaderError::Damaged) => return Fate::Rescue,
    };
    let ends_well =
        |f: &Footer| f.next >= header.first && f.end >= header.records_at() && f.end <= file.len;
    if let Some(footer) = file.footer.filter(ends_well) {
        return Fate::Sealed {
            next: footer.next,
            end: footer.end,
        };
    }
    // The next segment was begun only after this one's last sync had succeeded or failed, and says
    // up to where it had succeeded.
    match newer.and_then(|newer| newer.header.ok()) {
        Some(newer) if newer.previous == file.id && newer.previous_next >= header.first => {
            Fate::Sealed {
                next: newer.previous_next,
                end: file.len,
            }
        }
        _ => Fate::Scan,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(id: u64, previous_next: u64) -> Header {
        Header {
            id,
            first: 10 * id,
            previous: id - 1,
            previous_next,
            snapshot_len: 0,
            snapshot_crc: 0,
        }
    }

    fn found(id: u64) -> Found {
        Found {
            id,
            len: 4096,
            header: Ok(header(id, 10 * id)),
            footer: None,
        }
    }

    #[test]
    fn only_the_newest_segment_without_a_footer_is_scanned() {
        let fates = judge(&[found(1), found(2), found(3)]);
        let sealed = |next| Fate::Sealed { next, end: 4096 };
        assert_eq!(fates, [sealed(20), sealed(30), Fate::Scan]);
    }

    #[test]
    fn a_segment_whose_successor_was_released_is_scanned() {
        assert_eq!(judge(&[found(1), found(3)])[0], Fate::Scan);
    }

    #[test]
    fn a_footer_speaks_for_its_own_segment() {
        let footer = Some(Footer {
            id: 3,
            next: 33,
            end: 500,
        });
        let fates = judge(&[Found { footer, ..found(3) }]);
        assert_eq!(fates, [Fate::Sealed { next: 33, end: 500 }]);
        let beyond = Some(Footer {
            id: 3,
            next: 33,
            end: 5000,
        });
        assert_eq!(
            judge(&[Found {
                footer: beyond,
                ..found(3)
            }]),
            [Fate::Scan]
        );
    }

    #[test]
    fn a_file_with_the_header_of_another_number_was_about_to_be_recycled() {
        let file = Found { id: 9, ..found(2) };
        assert_eq!(judge(&[file]), [Fate::Stale]);
    }

    #[test]
    fn another_version_is_kept_and_its_positions_are_never_used_again() {
        let header = Err(HeaderError::Version {
            version: 2,
            id: 2,
            first: 20,
        });
        let fates = judge(&[Found { header, ..found(2) }]);
        assert_eq!(
            fates,
            [Fate::Foreign {
                version: 2,
                first: 20,
                next: 20 + 256
            }]
        );
    }
}

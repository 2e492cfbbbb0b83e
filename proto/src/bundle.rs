//! Up publishes of data: bundles back to back. Each is a head frame, then the frames that it numbers.
//!
//! ```text
//! publish: bundle+        bundle: [BundleHead frame] ([Schema frame] | [numbered frame] | [Portion frame])*
//! ```
//!
//! Numbered frames take `first`, `first + 1`, ... in order; schema and portion frames take no number. Bundles of
//! one publish stand on their own, may be of several origins and lanes, and share the bound of one:
//! a receiver reads them in order, and a damaged one ends the publish. `bundle/head.rs` draws the payload of
//! the head.

mod head;

use head::write_head;
pub use head::{BundleHead, MAX_HEAD_BYTES, Stamps, VERSION};

use crate::frame::{self, Frame, FrameError, Frames, Kind};
use crate::message::MAX_SEQ;
use crate::portion::MAX_PORTIONS;
use crate::varint::{self, NoRoom};

/// Most numbered frames in one bundle: bounds the work that one publish can ask for.
pub const MAX_RECORDS: u16 = 4096;
/// Most schema frames in one bundle: bounds the schemas that one publish can bring.
pub const MAX_SCHEMAS: u16 = 256;
/// Largest bundle unless a Welcome has another bound, frames and head counted.
pub const DEFAULT_MAX_BUNDLE_BYTES: u32 = 256 * 1024;

/// Why bytes are not a bundle. A bundle that is not whole is refused whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// A frame in it is damaged, cut or of an unknown kind.
    #[error("a frame of the bundle is refused: {0}")]
    Frame(FrameError),
    /// It does not begin with a head frame, or the head is cut or has trailing bytes.
    #[error("the bundle does not begin with a whole head")]
    Head,
    /// A bundle version this build does not read.
    #[error("bundle version {0} is unknown here")]
    Version(u8),
    /// A flag this build does not know.
    #[error("bundle flags {0:#04x} are unknown here")]
    Flags(u8),
    /// A frame that does not belong into a bundle.
    #[error("a frame of kind {0:?} does not belong into a bundle")]
    Kind(Kind),
    /// The head promises another number of records than follow, or more than are allowed.
    #[error("the bundle promises {promised} records and holds {found}")]
    Count {
        /// Count in the head.
        promised: u16,
        /// Records that follow, as far as they were counted.
        found: u16,
    },
    /// The bundles of one publish hold more than [`MAX_RECORDS`] together.
    #[error("the bundles of the publish hold too many records together")]
    TooMany,
    /// Sequence numbers pass [`MAX_SEQ`].
    #[error("the sequence numbers of the bundle pass their limit")]
    Seq,
}

/// Assembles a bundle within a slice; the slice's length is the bundle's limit.
#[derive(Debug)]
pub struct BundleWriter<'a> {
    out: &'a mut [u8],
    at: usize,
    head: BundleHead,
    count: u16,
    schemas: u16,
    portions: u16,
}

impl<'a> BundleWriter<'a> {
    /// Begins a bundle in `out`.
    ///
    /// # Errors
    /// [`NoRoom`] if not even the head fits.
    pub fn new(head: BundleHead, out: &'a mut [u8]) -> Result<Self, NoRoom> {
        let at = write_head(&head, 0, out)?;
        Ok(Self {
            out,
            at,
            head,
            count: 0,
            schemas: 0,
            portions: 0,
        })
    }

    /// Adds a frame around `payload`.
    ///
    /// # Errors
    /// [`NoRoom`] if it does not fit, or its kind does not belong into a bundle; the bundle is then
    /// unchanged.
    pub fn push(&mut self, kind: Kind, payload: &[u8]) -> Result<(), NoRoom> {
        self.admit(kind)?;
        let rest = self.out.get_mut(self.at..).ok_or(NoRoom)?;
        self.at += frame::encode(kind, payload, rest)?;
        self.took(kind);
        Ok(())
    }

    /// Adds a frame that is encoded already, header and checksum included.
    ///
    /// # Errors
    /// As [`BundleWriter::push`].
    pub fn push_frame(&mut self, kind: Kind, bytes: &[u8]) -> Result<(), NoRoom> {
        self.admit(kind)?;
        varint::put_bytes(self.out, &mut self.at, bytes)?;
        self.took(kind);
        Ok(())
    }

    /// Numbered frames so far.
    #[must_use]
    pub const fn count(&self) -> u16 {
        self.count
    }

    /// Bytes so far, head counted.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.at
    }

    /// Whether it holds no numbered frame yet. Such a bundle need not be sent.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Fills in the count; returns the length of the bundle.
    #[must_use]
    pub fn finish(self) -> usize {
        write_head(&self.head, self.count, self.out)
            .expect("the head has a fixed length and fitted before");
        self.at
    }

    const fn admit(&self, kind: Kind) -> Result<(), NoRoom> {
        let fits = if matches!(kind, Kind::Schema) {
            self.schemas < MAX_SCHEMAS
        } else if matches!(kind, Kind::Portion) {
            self.portions < MAX_PORTIONS
        } else {
            kind.is_numbered() && self.count < MAX_RECORDS
        };
        if fits { Ok(()) } else { Err(NoRoom) }
    }

    const fn took(&mut self, kind: Kind) {
        if kind.is_numbered() {
            self.count += 1;
        } else if matches!(kind, Kind::Portion) {
            self.portions += 1;
        } else {
            self.schemas += 1;
        }
    }
}

/// Assembles a bundle of at most `max_bytes` from records offered in order, in a buffer of its own.
///
/// `records` gives one frame after the other, as (kind, payload); the first that does not fit ends the
/// bundle. Returns the bytes and the count of numbered frames.
///
/// # Errors
/// [`NoRoom`] if not even the head fits.
#[cfg(feature = "alloc")]
pub fn assemble<'r>(
    head: BundleHead,
    max_bytes: usize,
    records: impl IntoIterator<Item = (Kind, &'r [u8])>,
) -> Result<(alloc::vec::Vec<u8>, u16), NoRoom> {
    let mut out = alloc::vec![0; max_bytes];
    let mut writer = BundleWriter::new(head, &mut out)?;
    for (kind, payload) in records {
        if writer.push(kind, payload).is_err() {
            break;
        }
    }
    let count = writer.count();
    let len = writer.finish();
    out.truncate(len);
    Ok((out, count))
}

/// A bundle that was checked whole: every checksum, kind and the count.
#[derive(Debug, Clone)]
pub struct Bundle<'a> {
    /// Facts that hold for all its records.
    pub head: BundleHead,
    /// How many numbered frames it holds.
    pub count: u16,
    body: &'a [u8],
}

/// One frame of a bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// Its sequence number; `None` for a frame of a schema or portion.
    pub seq: Option<u64>,
    /// The frame.
    pub frame: Frame<'a>,
    /// Its encoded bytes, header and checksum included.
    pub bytes: &'a [u8],
}

/// The bundles of a publish, in order. What cannot be read ends it with an error: nothing from there on can
/// be trusted, not even whose it is. So does one more record than [`MAX_RECORDS`] in all, where a bundle counts
/// as one, for it is work too if it holds nothing.
#[derive(Debug, Clone)]
pub struct Bundles<'a> {
    rest: &'a [u8],
    records: u32,
}

impl<'a> Bundles<'a> {
    /// Those of `publish`.
    #[must_use]
    pub const fn new(publish: &'a [u8]) -> Self {
        Self {
            rest: publish,
            records: 0,
        }
    }
}

impl<'a> Iterator for Bundles<'a> {
    type Item = Result<Bundle<'a>, BundleError>;

    fn next(&mut self) -> Option<Self::Item> {
        let publish = core::mem::take(&mut self.rest);
        if publish.is_empty() {
            return None;
        }
        let (bundle, rest) = match Bundle::first(publish) {
            Ok(opened) => opened,
            Err(error) => return Some(Err(error)),
        };
        self.records += 1 + u32::from(bundle.count);
        if self.records > u32::from(MAX_RECORDS) + 1 {
            return Some(Err(BundleError::TooMany));
        }
        self.rest = rest;
        Some(Ok(bundle))
    }
}

impl<'a> Bundle<'a> {
    /// Whether a publish begins like a bundle, by its first frame's kind byte.
    #[must_use]
    pub fn is_bundle(payload: &[u8]) -> bool {
        payload.get(1) == Some(&Kind::BundleHead.to_u8())
    }

    /// Checks the bundle that a publish begins with; returns it and the bytes of the next ones.
    ///
    /// # Errors
    /// [`BundleError`]; nothing from there on may then be used.
    pub fn first(publish: &'a [u8]) -> Result<(Self, &'a [u8]), BundleError> {
        let (first, len) = frame::decode(publish).map_err(BundleError::Frame)?;
        if first.kind != Kind::BundleHead {
            return Err(BundleError::Kind(first.kind));
        }
        let (head, promised) = BundleHead::decode(first.payload)?;
        let body = publish.get(len..).unwrap_or_default();
        let (mut found, mut schemas, mut portions, mut end) = (0u16, 0u16, 0u16, 0);
        for item in Frames::new(body) {
            let (frame, bytes) = match item {
                Ok(read) => read,
                // It may be the next bundle's head: this one is whole.
                Err(_) if found == promised => break,
                Err(error) => return Err(BundleError::Frame(error)),
            };
            if frame.kind == Kind::BundleHead {
                break;
            }
            if frame.kind == Kind::Schema {
                schemas += 1;
            } else if frame.kind == Kind::Portion {
                portions += 1;
            } else if frame.kind.is_numbered() {
                found += 1;
            } else {
                return Err(BundleError::Kind(frame.kind));
            }
            if found > MAX_RECORDS || schemas > MAX_SCHEMAS || portions > MAX_PORTIONS {
                return Err(BundleError::Count { promised, found });
            }
            end += bytes.len();
        }
        if found != promised {
            return Err(BundleError::Count { promised, found });
        }
        if head.first + u64::from(found) > MAX_SEQ {
            return Err(BundleError::Seq);
        }
        let (body, rest) = body.split_at(end);
        let bundle = Self {
            head,
            count: found,
            body,
        };
        Ok((bundle, rest))
    }

    /// Checks a publish of one bundle.
    ///
    /// # Errors
    /// [`BundleError`]; nothing of the publish may then be used.
    pub fn open(publish: &'a [u8]) -> Result<Self, BundleError> {
        let (bundle, rest) = Self::first(publish)?;
        match Frames::new(rest).next() {
            None => Ok(bundle),
            Some(Ok((frame, _))) => Err(BundleError::Kind(frame.kind)),
            Some(Err(error)) => Err(BundleError::Frame(error)),
        }
    }

    /// Its frames in order, those of schemas and portions among them.
    pub fn records(&self) -> impl Iterator<Item = Record<'a>> + use<'a> {
        let mut seq = self.head.first;
        Frames::new(self.body)
            .map_while(Result::ok)
            .map(move |(frame, bytes)| {
                let mut own = None;
                if frame.kind.is_numbered() {
                    own = Some(seq);
                    seq += 1;
                }
                Record {
                    seq: own,
                    frame,
                    bytes,
                }
            })
    }
}

#[cfg(test)]
mod tests {
    use super::head::tests::head;
    use super::*;
    use crate::ids::DeviceId;
    use proptest::prelude::*;
    use std::vec;
    use std::vec::Vec;

    fn bundle(records: &[(Kind, &[u8])]) -> Vec<u8> {
        assemble(head(), 4096, records.iter().copied()).unwrap().0
    }

    #[test]
    fn numbered_frames_take_numbers_in_order_and_schemas_take_none() {
        let bytes = bundle(&[(Kind::Schema, b"s"), (Kind::Batch, b"a"), (Kind::Gap, b"g")]);
        let bundle = Bundle::open(&bytes).unwrap();
        assert_eq!((bundle.head.clone(), bundle.count), (head(), 2));
        let seen: Vec<_> = bundle
            .records()
            .map(|r| (r.seq, r.frame.kind, r.frame.payload))
            .collect();
        assert_eq!(
            seen,
            [
                (None, Kind::Schema, &b"s"[..]),
                (Some(300), Kind::Batch, b"a"),
                (Some(301), Kind::Gap, b"g"),
            ]
        );
    }

    #[test]
    fn portions_take_no_number_and_have_a_bound_of_their_own() {
        let most = usize::from(MAX_PORTIONS);
        let bytes = assemble(
            head(),
            1 << 16,
            core::iter::once((Kind::Batch, &b"a"[..]))
                .chain(core::iter::repeat_n((Kind::Portion, &b"p"[..]), most + 1)),
        )
        .unwrap()
        .0;
        let whole = Bundle::open(&bytes).unwrap();
        let seqs: Vec<_> = whole.records().map(|record| record.seq).collect();
        assert_eq!((whole.count, seqs.len(), seqs[0]), (1, 1 + most, Some(300)));
        assert!(seqs[1..].iter().all(Option::is_none));
        let mut longer = bytes;
        frame::append(Kind::Portion, b"p", &mut longer).unwrap();
        let refused = BundleError::Count {
            promised: 1,
            found: 1,
        };
        assert_eq!(Bundle::open(&longer).err(), Some(refused));
    }

    #[test]
    fn a_record_that_does_not_fit_leaves_the_bundle_as_it_was() {
        let mut out = [0; 128];
        let mut writer = BundleWriter::new(head(), &mut out).unwrap();
        writer.push(Kind::Batch, &[7; 20]).unwrap();
        assert_eq!(writer.push(Kind::Batch, &[8; 100]), Err(NoRoom));
        assert_eq!(writer.push(Kind::Hello, &[8; 1]), Err(NoRoom));
        let len = writer.finish();
        let bundle = Bundle::open(&out[..len]).unwrap();
        assert_eq!(bundle.count, 1);
    }

    #[test]
    fn several_bundles_of_one_publish_are_read_in_order_up_to_a_damaged_one() {
        let one = bundle(&[(Kind::Schema, b"s"), (Kind::Batch, b"a")]);
        let mut other = head();
        (other.origin, other.first) = (DeviceId::new("node-3").unwrap(), 7);
        let (two, _) = assemble(other.clone(), 4096, [(Kind::Refused, &b"r"[..])]).unwrap();
        let publish = [&one[..], &two, &one].concat();
        let (bundle, rest) = Bundle::first(&publish).unwrap();
        assert_eq!(
            (bundle.head, bundle.count, rest.len()),
            (head(), 1, two.len() + one.len())
        );
        let (bundle, rest) = Bundle::first(rest).unwrap();
        assert_eq!((&bundle.head, bundle.count, rest), (&other, 1, &one[..]));
        assert_eq!(bundle.records().next().unwrap().seq, Some(7));
        assert_eq!(
            Bundle::open(&publish).err(),
            Some(BundleError::Kind(Kind::BundleHead))
        );

        let mut damaged = publish.clone();
        damaged[one.len() + 6] ^= 1;
        let (bundle, rest) = Bundle::first(&damaged).unwrap();
        assert_eq!((bundle.count, rest.len()), (1, two.len() + one.len()));
        assert!(matches!(Bundle::first(rest), Err(BundleError::Frame(_))));

        let mut damaged = publish;
        *damaged.last_mut().unwrap() ^= 1;
        let (_, rest) = Bundle::first(&damaged).unwrap();
        let (_, rest) = Bundle::first(rest).unwrap();
        assert!(matches!(Bundle::first(rest), Err(BundleError::Frame(_))));
    }

    #[test]
    fn a_bundle_that_is_not_whole_is_refused_whole() {
        let bytes = bundle(&[(Kind::Batch, b"abc"), (Kind::Batch, b"def")]);
        for cut in 0..bytes.len() {
            assert!(Bundle::open(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        let mut longer = bytes.clone();
        frame::append(Kind::Batch, b"x", &mut longer).unwrap();
        assert_eq!(
            Bundle::open(&longer).err(),
            Some(BundleError::Count {
                promised: 2,
                found: 3
            })
        );
        let mut foreign = bytes;
        frame::append(Kind::Ack, b"x", &mut foreign).unwrap();
        assert_eq!(
            Bundle::open(&foreign).err(),
            Some(BundleError::Kind(Kind::Ack))
        );
    }

    #[test]
    fn more_records_than_the_bound_are_neither_written_nor_read() {
        let records = vec![(Kind::Batch, &b""[..]); usize::from(MAX_RECORDS) + 1];
        let (mut bytes, count) = assemble(head(), 1 << 20, records).unwrap();
        assert_eq!(count, MAX_RECORDS);
        assert!(Bundle::open(&bytes).is_ok());
        frame::append(Kind::Batch, b"", &mut bytes).unwrap();
        assert!(matches!(
            Bundle::open(&bytes),
            Err(BundleError::Count { .. })
        ));
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            head_payload in proptest::collection::vec(any::<u8>(), 0..120),
        ) {
            let _ = Bundle::open(&bytes);
            let _ = BundleHead::<64>::decode(&head_payload);
            let mut begun = vec![VERSION, 63, 1, 1, b'a'];
            begun.extend(&head_payload);
            let mut framed = Vec::new();
            frame::append(Kind::BundleHead, &begun, &mut framed).unwrap();
            framed.extend(bytes);
            let _ = Bundle::open(&framed);
        }
    }

    #[test]
    fn more_schemas_than_the_bound_are_neither_written_nor_read() {
        let schemas = vec![(Kind::Schema, &b""[..]); usize::from(MAX_SCHEMAS) + 1];
        let mut out = vec![0; 1 << 20];
        let mut writer = BundleWriter::new(head(), &mut out).unwrap();
        for (kind, payload) in &schemas[1..] {
            writer.push(*kind, payload).unwrap();
        }
        assert_eq!(writer.push(Kind::Schema, b""), Err(NoRoom));
        writer.push(Kind::Batch, b"").unwrap();
        let len = writer.finish();
        let mut bytes = out[..len].to_vec();
        assert!(Bundle::open(&bytes).is_ok());
        frame::append(Kind::Schema, b"", &mut bytes).unwrap();
        assert!(matches!(
            Bundle::open(&bytes),
            Err(BundleError::Count { .. })
        ));
    }
}

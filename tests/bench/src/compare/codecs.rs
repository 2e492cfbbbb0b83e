//! The list of codecs, and what both ends of a session know before the first batch.

use headwater_proto::codec::{BackEnd, Encoder, Limits, Rows, fit};
use headwater_proto::schema::Schema;

use super::arrow::{Ipc, ParquetFile};
use super::columns::Pco;
use super::line::LineProtocol;
use super::ours::Headwater;
use super::rows::{JsonArray, JsonLines, MessagePack, Plain, Postcard};
use super::senml::SenmlCbor;
use super::sparkplug::Sparkplug;
use super::wrap::{Gzip, Lz4, Wrapped, Zstd};
use super::{Codec, Format as _};
use crate::data::Set;
use crate::table::{Shape, Table};

/// The codec names that the summary divides by.
pub(super) const POSTCARD: &str = "postcard + zstd 3";
pub(super) const JSON: &str = "JSON + zstd 3";
/// Ours as the agent sends it.
pub(super) const SENT: &str = "headwater";
/// Ours for small devices.
pub(super) const RICE: &str = "headwater, Rice";
/// Largest dictionary, as zstd's own examples size them for small messages.
const DICTIONARY_BYTES: usize = 16 << 10;
/// Into how many examples the first quarter is cut to train it.
const EXAMPLES: usize = 400;

/// One codec of the comparison.
pub(crate) struct Spec {
    pub(crate) name: &'static str,
    /// Ours, or one of the shipped ones.
    pub(crate) ours: bool,
    /// What a reader of the tables must know of it.
    pub(crate) note: &'static str,
    pub(crate) make: Make,
}

type Make = for<'a> fn(&'a Session) -> anyhow::Result<Box<dyn Codec + 'a>>;

/// What both ends know before the first batch.
pub(crate) struct Session {
    pub(crate) shape: Shape,
    /// Fitted on the first quarter, and read back from its bytes.
    pub(crate) schema: Schema,
    pub(crate) schema_bytes: usize,
    /// Trained on postcard rows of the first quarter.
    pub(crate) dictionary: Vec<u8>,
}

impl Session {
    pub(crate) fn new(set: &Set) -> anyhow::Result<Self> {
        let shape = Shape::of(set)?;
        let quarter = set.rows.len() / 4;
        let mut schema = set.schema.clone();
        let mut first = Rows::new(&schema);
        set.fill(0..quarter, &mut first)?;
        fit(&first, &mut schema);
        let mut bytes = Vec::new();
        schema.encode(&mut bytes)?;
        let dictionary = dictionary(set, &shape, quarter)?;
        Ok(Self {
            shape,
            schema: Schema::decode(&bytes, &Limits::DEFAULT)?,
            schema_bytes: bytes.len(),
            dictionary,
        })
    }
}

/// A trained dictionary; where the rows are too few to train on, the newest of them as they are.
fn dictionary(set: &Set, shape: &Shape, quarter: usize) -> anyhow::Result<Vec<u8>> {
    let step = (quarter / EXAMPLES).max(1);
    let mut examples = Vec::new();
    for rows in set.rows[..quarter].chunks(step) {
        let mut example = Vec::new();
        Postcard(shape).write(&Table::of(shape, rows)?, &mut example)?;
        examples.push(example);
    }
    Ok(
        zstd::dict::from_samples(&examples, DICTIONARY_BYTES).unwrap_or_else(|_| {
            let all = examples.concat();
            all[all.len().saturating_sub(DICTIONARY_BYTES)..].to_vec()
        }),
    )
}

/// Every codec: ours first.
pub(crate) fn all() -> Vec<Spec> {
    let mut specs: Vec<Spec> = Vec::new();
    let mut add = |name, ours, note, make: Make| {
        specs.push(Spec {
            name,
            ours,
            note,
            make,
        });
    };
    ours(&mut add);
    numbers_and_rows(&mut add);
    documents_and_files(&mut add);
    specs
}

/// Takes a codec's name, whether it is ours, its note, and how it is made.
type Add<'a> = dyn FnMut(&'static str, bool, &'static str, Make) + 'a;

fn ours(add: &mut Add<'_>) {
    add(
        SENT,
        true,
        "as the agent sends it: range coder, or up to 4 rows Rice codes where they are shorter; frame, \
         header and CRC-32C counted",
        |s| Ok(Box::new(Headwater::new(&s.schema, Encoder::new(&s.schema)))),
    );
    add(RICE, true, "as above", |s| {
        let encoder = Encoder::with_back_end(&s.schema, BackEnd::Rice);
        Ok(Box::new(Headwater::new(&s.schema, encoder)))
    });
    add("headwater, varint", true, "as above", |s| {
        let encoder = Encoder::with_back_end(&s.schema, BackEnd::Varint);
        Ok(Box::new(Headwater::new(&s.schema, encoder)))
    });
}

/// Codecs of columns and rows.
fn numbers_and_rows(add: &mut Add<'_>) {
    add("pco", false, "wrapped form, level 8; see `columns`", |s| {
        Ok(Box::new(Plain(Pco(&s.shape))))
    });
    add("pco + zstd 3", false, "zstd around all columns", |s| {
        Ok(Box::new(Wrapped::new(Pco(&s.shape), Zstd::new(3)?)))
    });
    add("postcard", false, "no names, labels as numbers", |s| {
        Ok(Box::new(Plain(Postcard(&s.shape))))
    });
    add(POSTCARD, false, "one zstd frame per batch", |s| {
        Ok(Box::new(Wrapped::new(Postcard(&s.shape), Zstd::new(3)?)))
    });
    add(
        "postcard + zstd 3 + dictionary",
        false,
        "dictionary of at most 16 KiB from the first quarter; magic and dictionary number left out",
        |s| {
            let zstd = Zstd::with_dictionary(3, &s.dictionary)?;
            Ok(Box::new(Wrapped::new(Postcard(&s.shape), zstd)))
        },
    );
    add(
        "postcard + zstd 9 + dictionary",
        false,
        "as above; the best of the shipped ones in small batches",
        |s| {
            let zstd = Zstd::with_dictionary(9, &s.dictionary)?;
            Ok(Box::new(Wrapped::new(Postcard(&s.shape), zstd)))
        },
    );
}

/// Formats that telemetry is sent and kept in.
fn documents_and_files(add: &mut Add<'_>) {
    add(
        "line protocol + gzip",
        false,
        "no NaN, no infinities; shortest decimals that read back to the same bits",
        |s| Ok(Box::new(Wrapped::new(LineProtocol(&s.shape), Gzip))),
    );
    add(
        "JSON + gzip",
        false,
        "no NaN, no infinities; exact only since the reader is built with `float_roundtrip`",
        |s| Ok(Box::new(Wrapped::new(JsonLines(&s.shape), Gzip))),
    );
    add(JSON, false, "as above", |s| {
        Ok(Box::new(Wrapped::new(JsonLines(&s.shape), Zstd::new(3)?)))
    });
    add("JSON array + LZ4", false, "as above", |s| {
        Ok(Box::new(Wrapped::new(JsonArray(&s.shape), Lz4)))
    });
    add("MessagePack + zstd 3", false, "an array of maps", |s| {
        Ok(Box::new(Wrapped::new(MessagePack(&s.shape), Zstd::new(3)?)))
    });
    add(
        "SenML CBOR + zstd 3",
        false,
        "times are seconds as doubles: exact to the microsecond, not beyond",
        |s| {
            let format = SenmlCbor::new(&s.shape);
            Ok(Box::new(Wrapped::new(format, Zstd::new(3)?)))
        },
    );
    add(
        "Sparkplug B",
        false,
        "aliases, no names; the standard's times are milliseconds and would lose finer ones",
        |s| Ok(Box::new(Plain(Sparkplug::new(&s.shape)))),
    );
    add("Sparkplug B + zstd 3", false, "as above", |s| {
        let format = Sparkplug::new(&s.shape);
        Ok(Box::new(Wrapped::new(format, Zstd::new(3)?)))
    });
    add("Arrow IPC", false, "a whole stream per batch", |s| {
        Ok(Box::new(Plain(Ipc::new(&s.shape))))
    });
    add("Arrow IPC + zstd 3", false, "zstd around the stream", |s| {
        Ok(Box::new(Wrapped::new(Ipc::new(&s.shape), Zstd::new(3)?)))
    });
    add("Parquet + zstd 3", false, "a whole file per batch", |s| {
        Ok(Box::new(Plain(ParquetFile::new(&s.shape)?)))
    });
}

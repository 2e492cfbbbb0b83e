//! The batch codec over every set: bytes per sample with frame, header and CRC, and CPU time.
//!
//! Parameters are fitted on the first quarter of a set's rows; the other three quarters are coded in
//! batches, decoded, and compared bit for bit.

use anyhow::{Context, ensure};
use headwater_proto::codec::{BackEnd, Encoder, Limits, RowVisitor, Rows, decode, fit};
use headwater_proto::frame;
use headwater_proto::sample::Value;

use crate::clock::cpu_ns;
use crate::data::Set;

const BATCH_ROWS: [usize; 3] = [10, 100, 1_000];
/// Each measured pass is repeated until this much CPU time has gone.
const PASS_NS: u64 = 20_000_000;

/// Figures of one set, back end and batch size.
struct Figures {
    bytes_per_sample: f64,
    encode_ns: f64,
    decode_ns: f64,
}

/// Prints the table and the geometric means.
pub(crate) fn run(sets: &[Set]) -> anyhow::Result<()> {
    let mut lines = vec![format!(
        "{:<14}{:<8}{}",
        "set",
        "coder",
        BATCH_ROWS
            .map(|rows| format!("{:>8} rows  enc ns  dec ns", rows))
            .concat()
    )];
    for back_end in [BackEnd::Varint, BackEnd::Rice, BackEnd::Range] {
        let mut logs = [0f64; 3];
        for set in sets {
            let mut line = format!("{:<14}{:<8}", set.name, format!("{back_end:?}"));
            for (log, rows) in logs.iter_mut().zip(BATCH_ROWS) {
                let figures = measure(set, back_end, rows)
                    .with_context(|| format!("{}, {back_end:?}, {rows} rows", set.name))?;
                *log += figures.bytes_per_sample.ln();
                line += &format!(
                    "{:>13.4}{:>8.1}{:>8.1}",
                    figures.bytes_per_sample, figures.encode_ns, figures.decode_ns
                );
            }
            lines.push(line);
        }
        let means = logs.map(|log| (log / sets.len() as f64).exp());
        let line = means.map(|mean| format!("{mean:>13.4}{:16}", "")).concat();
        lines.push(format!(
            "{:<14}{:<8}{line}",
            "geometric mean",
            format!("{back_end:?}")
        ));
    }
    lines.push(
        "bytes per sample with frame, batch header and CRC; every batch checked bit for bit".into(),
    );
    use std::io::Write as _;
    writeln!(std::io::stdout(), "{}", lines.join("\n"))?;
    Ok(())
}

fn measure(set: &Set, back_end: BackEnd, batch_rows: usize) -> anyhow::Result<Figures> {
    let mut schema = set.schema.clone();
    let quarter = set.rows.len() / 4;
    let mut first = Rows::new(&schema);
    set.fill(0..quarter, &mut first)?;
    fit(&first, &mut schema);
    // What a decoder knows is what the schema's bytes say.
    let mut bytes = Vec::new();
    schema.encode(&mut bytes)?;
    let schema = headwater_proto::schema::Schema::decode(&bytes, &Limits::DEFAULT)?;

    let mut batches = Vec::new();
    for start in (quarter..set.rows.len()).step_by(batch_rows) {
        let mut rows = Rows::new(&schema);
        set.fill(start..set.rows.len().min(start + batch_rows), &mut rows)?;
        batches.push(rows);
    }
    let mut encoder = Encoder::with_back_end(&schema, back_end);
    let mut payloads = Vec::new();
    let (mut bytes, mut samples) = (0usize, 0u64);
    for rows in &batches {
        let mut payload = Vec::new();
        let header = encoder.encode(1, rows, &mut payload)?;
        let mut check = Check {
            rows,
            row: 0,
            seen: 0,
            wrong: 0,
        };
        let read = decode(&payload, &schema, &Limits::DEFAULT, &mut check)?;
        ensure!(read == header, "the header changed on the way");
        ensure!(
            check.wrong == 0 && check.seen == rows.samples(),
            "a value changed on the way"
        );
        bytes += frame::encoded_len(payload.len());
        samples += u64::from(rows.samples());
        payloads.push(payload);
    }
    let mut out = Vec::new();
    let encode_ns = per_sample(samples, || {
        for rows in &batches {
            out.clear();
            encoder.encode(1, rows, &mut out)?;
        }
        Ok(())
    })?;
    let mut sum = Sum(0);
    let decode_ns = per_sample(samples, || {
        for payload in &payloads {
            decode(payload, &schema, &Limits::DEFAULT, &mut sum)?;
        }
        Ok(())
    })?;
    std::hint::black_box(sum.0);
    Ok(Figures {
        bytes_per_sample: bytes as f64 / samples as f64,
        encode_ns,
        decode_ns,
    })
}

fn per_sample(samples: u64, mut pass: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    let start = cpu_ns();
    let mut passes = 0u64;
    loop {
        pass()?;
        passes += 1;
        let spent = cpu_ns() - start;
        if spent >= PASS_NS {
            return Ok(spent as f64 / (passes * samples) as f64);
        }
    }
}

/// Compares what is decoded with the rows that were encoded.
struct Check<'a> {
    rows: &'a Rows,
    row: usize,
    seen: u32,
    wrong: u32,
}

impl RowVisitor for Check<'_> {
    fn row(&mut self, row: u32, time_us: i64, series: u32) {
        self.row = row as usize;
        let same = self.rows.time_us(self.row) == time_us && self.rows.series(self.row) == series;
        self.wrong += u32::from(!same);
    }

    fn value(&mut self, column: usize, value: Value<'_>) {
        self.seen += 1;
        let same = self
            .rows
            .value(self.row, column)
            .is_some_and(|v| v.same_bits(&value));
        self.wrong += u32::from(!same);
    }
}

/// A visitor that does next to nothing, so that decoding itself is measured.
struct Sum(u64);

impl RowVisitor for Sum {
    fn row(&mut self, _: u32, time_us: i64, _: u32) {
        self.0 ^= time_us.cast_unsigned();
    }

    fn value(&mut self, _: usize, value: Value<'_>) {
        self.0 ^= match value {
            Value::Bool(v) => u64::from(v),
            Value::I64(v) => v.cast_unsigned(),
            Value::F32(v) => u64::from(v.to_bits()),
            Value::F64(v) => v.to_bits(),
            Value::Str(v) => v.len() as u64,
        };
    }
}

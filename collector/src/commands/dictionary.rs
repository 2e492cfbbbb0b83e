//! `headwater-collector dictionary`: what the lines of a fleet have in common, for zstd.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use headwater_lake::scan;
use headwater_program::output::print;
use headwater_proto::text::{MAX_DICTIONARY_BYTES, MAX_LINE_OVERHEAD_BYTES, write_line};
use serde::Serialize;

use super::audit::open;
use crate::sink::lake::LakePlace;

/// Lines looked at, in bytes: some hundred times the largest dictionary, as zstd advises. A lake that
/// holds more gives every second line, every fourth and so on.
const SAMPLE_BYTES: usize = 8 << 20;
/// Fewer lines teach a dictionary nothing but themselves.
const LEAST_LINES: usize = 200;
/// Every so many batches one is kept apart, to tell what the dictionary saves on lines it has not seen.
const HELD_OUT: usize = 10;
/// Lines of a batch: what an agent that logs a little gathers in a second.
const BATCH_LINES: usize = 10;
/// Level at which agents compress.
const LEVEL: i32 = 3;

/// What `dictionary` takes.
#[derive(Debug, clap::Args)]
pub struct DictionaryArgs {
    /// Folder of the lake, or s3://bucket/prefix.
    #[arg(long)]
    lake: LakePlace,
    /// File to write.
    #[arg(long)]
    out: PathBuf,
    /// Size of the dictionary in KiB; each segment of an agent's spool and of the journal repeats it.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u64).range(1..=32))]
    kib: u64,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// A trained dictionary and what it is worth.
#[derive(Debug, Serialize)]
struct Trained {
    #[serde(skip)]
    bytes: Vec<u8>,
    /// Lines that taught it.
    lines: usize,
    /// Bytes of the lines kept apart, in batches of ten without it.
    held_out_plain_bytes: usize,
    /// The same with it.
    held_out_bytes: usize,
}

pub(super) fn run(args: &DictionaryArgs) -> Result<bool> {
    let mut sample = Sample::new(SAMPLE_BYTES);
    scan::messages(&open(&args.lake)?, |message| sample.take(message))?;
    let bytes = usize::try_from(args.kib * 1024)?;
    let trained = train(&sample.lines, bytes).with_context(|| {
        let lake = &args.lake;
        format!("no dictionary can be trained from the log lines in {lake}")
    })?;
    std::fs::write(&args.out, &trained.bytes)
        .with_context(|| format!("cannot write {}", args.out.display()))?;
    print(&if args.json {
        format!("{}\n", serde_json::to_string(&trained)?)
    } else {
        format!(
            "{}: {} bytes from {} lines; batches of ten lines it has not seen take {} bytes \
             instead of {}\n",
            args.out.display(),
            trained.bytes.len(),
            trained.lines,
            trained.held_out_bytes,
            trained.held_out_plain_bytes
        )
    })?;
    Ok(true)
}

/// Lines spread evenly over all that are seen, within a bound of bytes.
#[derive(Debug)]
struct Sample {
    lines: Vec<Vec<u8>>,
    bytes: usize,
    most: usize,
    /// One line of so many is taken.
    stride: u64,
    seen: u64,
}

impl Sample {
    const fn new(most: usize) -> Self {
        Self {
            lines: Vec::new(),
            bytes: 0,
            most,
            stride: 1,
            seen: 0,
        }
    }

    fn take(&mut self, message: &str) {
        self.seen += 1;
        if !(self.seen - 1).is_multiple_of(self.stride) {
            return;
        }
        let mut line = vec![0; message.len() + MAX_LINE_OVERHEAD_BYTES];
        let len = write_line(0, 0, message.as_bytes(), &mut line).unwrap_or(0);
        line.truncate(len);
        self.bytes += len;
        self.lines.push(line);
        while self.bytes > self.most && self.lines.len() > 1 {
            let mut keep = false;
            self.lines.retain(|_| {
                keep = !keep;
                keep
            });
            self.bytes = self.lines.iter().map(Vec::len).sum();
            self.stride *= 2;
        }
    }
}

fn train(lines: &[Vec<u8>], bytes: usize) -> Result<Trained> {
    ensure!(
        lines.len() >= LEAST_LINES,
        "there are {} lines, and fewer than {LEAST_LINES} have too little in common; sources of kind \
         `file` bring them",
        lines.len()
    );
    let (mut taught, mut apart) = (Vec::new(), Vec::new());
    for (at, batch) in lines.chunks(BATCH_LINES).enumerate() {
        if at % HELD_OUT == HELD_OUT - 1 {
            apart.push(batch.concat());
        } else {
            taught.extend(batch.iter().map(Vec::as_slice));
        }
    }
    let dictionary = zstd::dict::from_samples(&taught, bytes.min(MAX_DICTIONARY_BYTES))
        .context("zstd found too little that repeats")?;
    let size = |dictionary: &[u8]| -> Result<usize> {
        let mut zstd = zstd::bulk::Compressor::with_dictionary(LEVEL, dictionary)?;
        zstd.include_dictid(false)?;
        zstd.include_contentsize(false)?;
        let mut sum = 0;
        for batch in &apart {
            sum += zstd.compress(batch)?.len();
        }
        Ok(sum)
    };
    Ok(Trained {
        lines: taught.len(),
        held_out_plain_bytes: size(&[])?,
        held_out_bytes: size(&dictionary)?,
        bytes: dictionary,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Line `at` of a machine that says six kinds of things.
    fn line(at: u64) -> String {
        let dice = at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let (kind, id) = (dice % 6, dice >> 8 & 0xff);
        let what = [
            "pressure above the limit, the valve opens",
            "no answer from the flow meter within the time set",
            "the motor's temperature is back in its normal range",
            "configuration taken over, nothing restarts",
            "connection to the controller lost, trying again",
            "self test passed without complaints",
        ];
        format!("pump-{id}: {}", what[usize::try_from(kind).unwrap()])
    }

    #[test]
    fn lines_that_are_alike_take_less_than_half_the_bytes_with_a_dictionary() {
        let mut sample = Sample::new(SAMPLE_BYTES);
        (0..4_000).for_each(|at| sample.take(&line(at)));
        let trained = train(&sample.lines, 4096).unwrap();
        assert!(headwater_proto::text::is_dictionary(&trained.bytes));
        assert_eq!(trained.lines, 3_600);
        let (small, plain) = (trained.held_out_bytes, trained.held_out_plain_bytes);
        assert!(small * 2 < plain, "{small} of {plain} bytes");
    }

    #[test]
    fn a_sample_stays_within_its_bytes_and_spreads_over_all_lines() {
        let mut sample = Sample::new(10_000);
        (0..10_000).for_each(|at| sample.take(&format!("{at:05}")));
        assert!(sample.bytes <= 10_000 && sample.bytes > 4_000);
        assert!(sample.lines.first().unwrap().ends_with(b"00000"));
        let last: u32 = std::str::from_utf8(&sample.lines.last().unwrap()[2..])
            .unwrap()
            .parse()
            .unwrap();
        assert!(last > 9_900 - 100, "{last}");
    }

    #[test]
    fn a_handful_of_lines_trains_nothing() {
        let mut sample = Sample::new(SAMPLE_BYTES);
        (0..LEAST_LINES - 1).for_each(|at| sample.take(&line(at as u64)));
        assert!(train(&sample.lines, 4096).is_err());
    }
}

//! Core: gathers log lines until they become one compressed Text payload.

use headwater_proto::text::{
    self, MAX_HEADER_BYTES, MAX_LINE_OVERHEAD_BYTES, MAX_NAME_BYTES, TextHeader,
};
use headwater_proto::time::UnixMicros;

/// zstd's own default: the best bytes per time for log lines.
const LEVEL: i32 = 3;

/// The open lines of one log.
#[derive(Debug)]
pub struct TextBatch {
    name: String,
    body: Vec<u8>,
    lines: usize,
    first_line: i64,
    times: (i64, i64),
}

impl TextBatch {
    /// No line yet; a name beyond its limit is cut at a character.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let mut end = name.len().min(MAX_NAME_BYTES);
        while !name.is_char_boundary(end) {
            end -= 1;
        }
        let name = name[..end].to_owned();
        Self {
            name,
            body: Vec::new(),
            lines: 0,
            first_line: 0,
            times: (0, 0),
        }
    }

    /// Adds a line.
    pub fn push(&mut self, time: UnixMicros, line: &[u8]) {
        if self.lines == 0 {
            self.first_line = time.0;
            self.times = (time.0, time.0);
        }
        self.times = (self.times.0.min(time.0), self.times.1.max(time.0));
        self.append(time, line);
        self.lines += 1;
    }

    fn append(&mut self, time: UnixMicros, line: &[u8]) {
        let start = self.body.len();
        self.body
            .resize(start + line.len() + MAX_LINE_OVERHEAD_BYTES, 0);
        let len = text::write_line(time.0, self.first_line, line, &mut self.body[start..])
            .expect("the room was made for it");
        self.body.truncate(start + len);
    }

    /// How many lines it holds.
    #[must_use]
    pub const fn lines(&self) -> usize {
        self.lines
    }

    /// Their bytes before compression.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.body.len()
    }

    /// Whether it holds none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.lines == 0
    }

    /// The payload of all lines, compressed with the dictionary of that number where there is one;
    /// begins anew.
    pub fn close(&mut self, dictionary: Option<(u32, &[u8])>) -> Vec<u8> {
        if self.times.0 != self.first_line {
            self.rebase();
        }
        let header = TextHeader {
            dictionary: dictionary.map(|(number, _)| number),
            lines: u32::try_from(self.lines).unwrap_or(u32::MAX),
            first_time_us: self.times.0,
            last_time_us: self.times.1,
            name: &self.name,
            body_bytes: self.body.len(),
        };
        let mut out = vec![0; MAX_HEADER_BYTES];
        let len = header
            .write(&mut out)
            .expect("the header fits its own limit");
        out.truncate(len);
        let packed = compress(&self.body, dictionary.map(|(_, bytes)| bytes))
            .expect("zstd compresses any bytes into a buffer of its own bound");
        out.extend_from_slice(&packed);
        self.body.clear();
        self.lines = 0;
        out
    }

    /// Writes the lines again with times relative to the earliest, which came late.
    fn rebase(&mut self) {
        let old = std::mem::take(&mut self.body);
        let lines = text::Lines::new(&old, self.first_line);
        self.first_line = self.times.0;
        for (time, line) in lines {
            self.append(UnixMicros(time), line);
        }
    }
}

/// Whether zstd takes the bytes for a dictionary, both ways: its two readers check different things.
#[must_use]
pub fn is_whole(dictionary: &[u8]) -> bool {
    let line = b"a line".as_slice();
    let there_and_back = || {
        let packed = compress(line, Some(dictionary))?;
        zstd::bulk::Decompressor::with_dictionary(dictionary)?.decompress(&packed, line.len())
    };
    text::is_dictionary(dictionary) && there_and_back().is_ok_and(|back| back == line)
}

fn compress(body: &[u8], dictionary: Option<&[u8]>) -> std::io::Result<Vec<u8>> {
    let Some(dictionary) = dictionary else {
        return zstd::bulk::compress(body, LEVEL);
    };
    let mut compressor = zstd::bulk::Compressor::with_dictionary(LEVEL, dictionary)?;
    // The header says both, and a batch may be one short line.
    compressor.include_dictid(false)?;
    compressor.include_contentsize(false)?;
    compressor.compress(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(payload: &[u8]) -> Vec<(i64, Vec<u8>)> {
        let (header, packed) = TextHeader::read(payload).unwrap();
        let body = zstd::bulk::decompress(packed, header.body_bytes).unwrap();
        let mut lines = text::Lines::new(&body, header.first_time_us);
        let out: Vec<_> = lines
            .by_ref()
            .map(|(time, line)| (time, line.to_vec()))
            .collect();
        assert!(lines.is_done());
        assert_eq!(out.len(), header.lines as usize);
        out
    }

    #[test]
    fn lines_come_back_in_order_with_their_bytes_and_times() {
        let mut batch = TextBatch::new("syslog");
        for (time, line) in [(50, &b"fifty"[..]), (20, b""), (70, b"\xff\xfe")] {
            batch.push(UnixMicros(time), line);
        }
        assert_eq!(batch.times, (20, 70));
        let payload = batch.close(None);
        assert_eq!(
            lines(&payload),
            [
                (50, b"fifty".to_vec()),
                (20, vec![]),
                (70, b"\xff\xfe".to_vec())
            ]
        );
        assert!(batch.is_empty());
        batch.push(UnixMicros(5), b"again");
        assert_eq!(lines(&batch.close(None)), [(5, b"again".to_vec())]);
    }

    #[test]
    fn lines_with_a_dictionary_take_fewer_bytes_and_need_it() {
        let line = |n: u32| format!("valve {} of pump {n} does not close, trying again", n % 7);
        let lines: Vec<String> = (0..2_000).map(line).collect();
        let dictionary = zstd::dict::from_samples(&lines, 1024).unwrap();
        assert!(is_whole(&dictionary));
        assert!(!is_whole(&dictionary[..40]) && !is_whole(b"no dictionary"));
        let mut batch = TextBatch::new("pumps");
        let mut payload = |dictionary| {
            batch.push(UnixMicros(1), line(3_000).as_bytes());
            batch.close(dictionary)
        };
        let plain = payload(None);
        let small = payload(Some((9, dictionary.as_slice())));
        assert!(
            small.len() + 20 < plain.len(),
            "{} {}",
            small.len(),
            plain.len()
        );
        let (header, packed) = TextHeader::read(&small).unwrap();
        assert_eq!(header.dictionary, Some(9));
        assert!(zstd::bulk::decompress(packed, header.body_bytes).is_err());
        let mut zstd = zstd::bulk::Decompressor::with_dictionary(&dictionary).unwrap();
        let body = zstd.decompress(packed, header.body_bytes).unwrap();
        let read: Vec<_> = text::Lines::new(&body, header.first_time_us).collect();
        assert_eq!(read, [(1, line(3_000).as_bytes())]);
    }

    #[test]
    fn a_long_name_is_cut_at_a_character() {
        let name = "ä".repeat(200);
        let mut batch = TextBatch::new(&name);
        batch.push(UnixMicros(1), b"x");
        let payload = batch.close(None);
        assert_eq!(TextHeader::read(&payload).unwrap().0.name, "ä".repeat(127));
    }
}

//! Packets on a byte stream: consistent overhead byte stuffing (COBS), a zero byte after each packet.
//!
//! One packet carries what one publish would: frames back to back, each with its own checksum. On the
//! line no byte of a packet is zero, so a receiver that lost its place finds it again at the next zero.
//!
//! | bytes | what |
//! |---|---|
//! | 1 | `n + 1`: so many bytes follow that are not zero, then a zero is meant, unless `n + 1` is 255 or the packet ends |
//! | n | these bytes |
//! | ... | the same again until the packet ends |
//! | 1 | 0: end of the packet |
//!
//! A sender writes a zero before its first packet too: it ends whatever half packet stands before it.
//!
//! # Source
//! Cheshire and Baker, "Consistent Overhead Byte Stuffing", IEEE/ACM Transactions on Networking 7(2), 1999.

use crate::varint::NoRoom;

/// The byte that ends a packet.
pub const END: u8 = 0;
/// Longest run of bytes behind one code byte.
const RUN: usize = 254;

/// Bytes that suffice for a packet of `len` bytes on the line, its end counted.
#[must_use]
pub const fn max_encoded(len: usize) -> usize {
    len + len / RUN + 2
}

/// Writes a packet as it goes over the line, its end included; returns its length.
///
/// # Errors
/// [`NoRoom`] if `out` is too short; [`max_encoded`] bytes always suffice.
pub fn encode(packet: &[u8], out: &mut [u8]) -> Result<usize, NoRoom> {
    let mut at = 0;
    let mut rest = packet;
    loop {
        let run = rest.iter().take(RUN).take_while(|byte| **byte != 0).count();
        let (bytes, after) = rest.split_at(run);
        let code = u8::try_from(run + 1).map_err(|_| NoRoom)?;
        let room = out.get_mut(at..at + 1 + run).ok_or(NoRoom)?;
        if let Some((first, room)) = room.split_first_mut() {
            *first = code;
            room.copy_from_slice(bytes);
        }
        at += 1 + run;
        if after.is_empty() {
            break;
        }
        // The next code byte means the zero that ended a shorter run.
        rest = if run < RUN { &after[1..] } else { after };
    }
    *out.get_mut(at).ok_or(NoRoom)? = END;
    Ok(at + 1)
}

/// Appends a packet as it goes over the line.
#[cfg(feature = "alloc")]
pub fn append(packet: &[u8], out: &mut alloc::vec::Vec<u8>) {
    let start = out.len();
    out.resize(start + max_encoded(packet.len()), 0);
    let len = encode(packet, &mut out[start..]).expect("max_encoded bytes suffice");
    out.truncate(start + len);
}

/// What a byte of the line brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read<'a> {
    /// Nothing yet.
    More,
    /// A whole packet. It may be empty: two ends in a row.
    Packet(&'a [u8]),
    /// The packet that ended here was longer than the buffer, or was cut: it is dropped.
    Bad,
}

/// Takes packets out of a byte stream. Its buffer bounds them.
#[derive(Debug)]
pub struct Decoder<B> {
    buffer: B,
    len: usize,
    /// Bytes that are still to come behind the last code byte.
    left: u8,
    /// A zero is meant before the next code byte's run.
    owes_zero: bool,
    bad: bool,
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> Decoder<B> {
    /// Before the first byte. `buffer` holds the largest packet that is taken.
    pub const fn new(buffer: B) -> Self {
        Self {
            buffer,
            len: 0,
            left: 0,
            owes_zero: false,
            bad: false,
        }
    }

    /// Takes the next byte of the line.
    pub fn push(&mut self, byte: u8) -> Read<'_> {
        if byte == END {
            return self.end();
        }
        if self.left == 0 {
            if self.owes_zero {
                self.put(0);
            }
            self.left = byte - 1;
            self.owes_zero = usize::from(byte) <= RUN;
        } else {
            self.put(byte);
            self.left -= 1;
        }
        Read::More
    }

    /// Whether bytes of a packet have come that has not ended.
    #[must_use]
    pub const fn is_inside(&self) -> bool {
        self.len > 0 || self.left > 0 || self.owes_zero || self.bad
    }

    fn put(&mut self, byte: u8) {
        match self.buffer.as_mut().get_mut(self.len) {
            Some(place) => {
                *place = byte;
                self.len += 1;
            }
            None => self.bad = true,
        }
    }

    fn end(&mut self) -> Read<'_> {
        let is_bad = self.bad || self.left > 0;
        let len = self.len;
        (self.len, self.left) = (0, 0);
        (self.owes_zero, self.bad) = (false, false);
        if is_bad {
            return Read::Bad;
        }
        self.buffer
            .as_ref()
            .get(..len)
            .map_or(Read::Bad, Read::Packet)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec;
    use std::vec::Vec;

    fn on_line(packet: &[u8]) -> Vec<u8> {
        let mut out = vec![0; max_encoded(packet.len())];
        let len = encode(packet, &mut out).unwrap();
        out.truncate(len);
        out
    }

    /// All that a decoder with room for `most` bytes makes of a line: packets, `None` for a bad one.
    fn packets(line: &[u8], most: usize) -> Vec<Option<Vec<u8>>> {
        let mut decoder = Decoder::new(vec![0; most]);
        let mut all = Vec::new();
        for byte in line {
            match decoder.push(*byte) {
                Read::More => {}
                Read::Packet(packet) => all.push(Some(packet.to_vec())),
                Read::Bad => all.push(None),
            }
        }
        all
    }

    #[test]
    fn the_bytes_on_the_line_are_those_of_the_paper() {
        assert_eq!(on_line(&[]), [1, 0]);
        assert_eq!(on_line(&[0]), [1, 1, 0]);
        assert_eq!(on_line(&[0x11, 0x22, 0, 0x33]), [3, 0x11, 0x22, 2, 0x33, 0]);
        assert_eq!(on_line(&[0x11, 0, 0, 0]), [2, 0x11, 1, 1, 1, 0]);
        let long = [7; 254];
        assert_eq!(on_line(&long).len(), 256);
        assert_eq!(on_line(&[&long[..], &[0]].concat())[255..], [1, 1, 0]);
        assert_eq!(on_line(&[&long[..], &[7]].concat())[255..], [2, 7, 0]);
    }

    #[test]
    fn a_packet_of_the_buffers_size_is_taken_and_a_longer_one_costs_only_itself() {
        let line = [on_line(&[1; 300]), on_line(&[2; 301]), on_line(&[0; 300])].concat();
        let read = packets(&line, 300);
        assert_eq!(read, [Some(vec![1; 300]), None, Some(vec![0; 300])]);
    }

    #[test]
    fn a_cut_packet_is_dropped_and_the_next_one_is_read() {
        let whole = on_line(&[1, 2, 3, 0, 4]);
        for cut in 1..whole.len() - 1 {
            let line = [&whole[..cut], &[END], &whole[..]].concat();
            let read = packets(&line, 100);
            assert_eq!(read.len(), 2, "cut at {cut}");
            assert_eq!(read[1], Some(vec![1, 2, 3, 0, 4]), "cut at {cut}");
        }
        let mut decoder = Decoder::new([0; 8]);
        assert!(!decoder.is_inside());
        decoder.push(3);
        assert!(decoder.is_inside());
        decoder.push(END);
        assert!(!decoder.is_inside());
    }

    #[test]
    fn a_slice_that_is_too_short_is_told() {
        let packet = [5; 10];
        let mut out = [0; 12];
        for len in 0..out.len() {
            assert_eq!(encode(&packet, &mut out[..len]), Err(NoRoom), "{len}");
        }
        assert_eq!(encode(&packet, &mut out), Ok(12));
    }

    proptest! {
        #[test]
        fn decode_undoes_encode_after_any_bytes(
            before in proptest::collection::vec(any::<u8>(), 0..600),
            packet in proptest::collection::vec(prop_oneof![Just(0u8), any::<u8>()], 0..600),
        ) {
            let line = on_line(&packet);
            prop_assert!(line.len() <= max_encoded(packet.len()));
            prop_assert_eq!(line.iter().filter(|byte| **byte == END).count(), 1);
            let all = packets(&[&before[..], &[END], &line].concat(), 600);
            prop_assert_eq!(all.last(), Some(&Some(packet)));
        }

        #[test]
        fn any_line_is_read_within_the_buffer(line: Vec<u8>, most in 0usize..40) {
            for packet in packets(&line, most).into_iter().flatten() {
                prop_assert!(packet.len() <= most);
            }
        }
    }
}

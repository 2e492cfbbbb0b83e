//! Core: the least of HTTP/1.1 that stands between a client and a server: a request is kept as its
//! bytes were, an answer is taken apart and may be changed.

use std::io::{self, BufRead, ErrorKind, Read};

use anyhow::{Context, Result, bail, ensure};

/// Longest head of a request or an answer, in bytes: several times what a signed request has.
pub const MAX_HEAD_BYTES: usize = 64 * 1024;
/// Longest body of a request or an answer, in bytes: far above a part of an upload.
pub const MAX_BODY_BYTES: usize = 64 * 1024 * 1024;

/// First line and headers of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Head {
    /// As they came, with the empty line at the end.
    pub raw: Vec<u8>,
    /// `GET` and so on.
    pub method: String,
    /// Path and query, as sent.
    pub target: String,
    /// Names in small letters.
    pub headers: Vec<(String, String)>,
    /// Whether it says HTTP/1.0, which closes after each answer.
    pub is_old: bool,
}

impl Head {
    /// The value of a header, by its name in small letters.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    /// Whether the client waits for a `100 Continue` before it sends the body.
    #[must_use]
    pub fn expects_continue(&self) -> bool {
        says(&self.headers, "expect", "100-continue")
    }

    /// Whether the connection ends with this request.
    #[must_use]
    pub fn closes(&self) -> bool {
        self.is_old || says(&self.headers, "connection", "close")
    }

    /// The same head for a body of another length.
    #[must_use]
    pub fn with_length(&self, length: usize) -> Vec<u8> {
        let mut out = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        let kept = self.headers.iter().filter(|(name, _)| {
            !["content-length", "transfer-encoding", "expect"].contains(&name.as_str())
        });
        for (name, value) in kept {
            out += &format!("{name}: {value}\r\n");
        }
        out += &format!("content-length: {length}\r\n\r\n");
        out.into_bytes()
    }
}

/// A body: the bytes on the wire, and what they mean.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Body {
    raw: Vec<u8>,
    /// Only of a chunked body, whose bytes on the wire are others.
    unchunked: Option<Vec<u8>>,
}

impl Body {
    /// As it came.
    #[must_use]
    pub fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// Without the lengths of chunks.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.unchunked.as_deref().unwrap_or(&self.raw)
    }
}

/// What a server said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// For example 200.
    pub status: u16,
    /// What stands behind it.
    pub reason: String,
    /// Names in small letters; without those that say how long the body is.
    pub headers: Vec<(String, String)>,
    /// Without the lengths of chunks.
    pub body: Vec<u8>,
    /// What `Content-Length` said: an answer to HEAD has one without a body.
    pub length: Option<usize>,
}

impl Answer {
    /// The value of a header, by its name in small letters.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    /// Sets a header that may be there once.
    pub fn set_header(&mut self, name: &str, value: String) {
        self.headers.retain(|(other, _)| other != name);
        self.headers.push((name.to_owned(), value));
    }

    /// Another body; what the server said about the old one goes.
    pub fn set_body(&mut self, body: Vec<u8>) {
        self.headers.retain(|(name, _)| name != "x-amz-crc32");
        self.body = body;
    }

    /// Whether it says that the request was carried out.
    #[must_use]
    pub const fn is_good(&self) -> bool {
        self.status >= 200 && self.status < 300
    }

    /// Its bytes on the wire. `to_head`: it answers a HEAD.
    #[must_use]
    pub fn encode(&self, to_head: bool, closes: bool) -> Vec<u8> {
        let mut out = format!("HTTP/1.1 {} {}\r\n", self.status, self.reason);
        for (name, value) in &self.headers {
            if name != "connection" {
                out += &format!("{name}: {value}\r\n");
            }
        }
        if closes {
            out += "connection: close\r\n";
        }
        let length = if to_head {
            self.length.unwrap_or(0)
        } else {
            self.body.len()
        };
        if has_body(self.status) {
            out += &format!("content-length: {length}\r\n");
        }
        out += "\r\n";
        let mut out = out.into_bytes();
        if !to_head && has_body(self.status) {
            out.extend_from_slice(&self.body);
        }
        out
    }
}

const fn has_body(status: u16) -> bool {
    status >= 200 && status != 204 && status != 304
}

fn find<'h>(headers: &'h [(String, String)], name: &str) -> Option<&'h str> {
    let found = headers.iter().find(|(other, _)| other == name);
    found.map(|(_, value)| value.as_str())
}

fn says(headers: &[(String, String)], name: &str, word: &str) -> bool {
    find(headers, name).is_some_and(|value| value.eq_ignore_ascii_case(word))
}

/// Reads the head of the next request; `None` if the client is done.
///
/// # Errors
/// When the connection fails, or the head is none or above [`MAX_HEAD_BYTES`].
pub fn read_head(reader: &mut impl BufRead) -> Result<Option<Head>> {
    let Some(raw) = read_lines(reader)? else {
        return Ok(None);
    };
    let (first, headers) = parse(&raw)?;
    let mut words = first.split(' ');
    let (Some(method), Some(target), Some(version)) = (words.next(), words.next(), words.next())
    else {
        bail!("no request: {first}");
    };
    Ok(Some(Head {
        method: method.to_owned(),
        target: target.to_owned(),
        is_old: version == "HTTP/1.0",
        headers,
        raw,
    }))
}

/// Reads the body that `head` announces. `took` is told of each piece and its length in bytes, before
/// the next one is read: there a slow link waits.
///
/// # Errors
/// When the connection fails or ends, or the body is above [`MAX_BODY_BYTES`].
pub fn read_body(
    reader: &mut impl BufRead,
    head: &Head,
    took: &mut impl FnMut(usize),
) -> Result<Body> {
    if says(&head.headers, "transfer-encoding", "chunked") {
        return read_chunks(reader, took);
    }
    let length = length_of(&head.headers)?.unwrap_or(0);
    let mut raw = Vec::new();
    read_exactly(reader, length, &mut raw, took)?;
    Ok(Body {
        raw,
        unchunked: None,
    })
}

/// Reads an answer; those that only say that the final one will come are left out.
///
/// # Errors
/// As [`read_body`].
pub fn read_answer(reader: &mut impl BufRead, to_head: bool) -> Result<Answer> {
    loop {
        let raw = read_lines(reader)?.context("the server closed without an answer")?;
        let (first, mut headers) = parse(&raw)?;
        let mut words = first.splitn(3, ' ');
        let status = words.nth(1).context("no status")?.parse()?;
        if status < 200 {
            continue;
        }
        let length = length_of(&headers)?;
        let is_chunked = says(&headers, "transfer-encoding", "chunked");
        headers.retain(|(name, _)| name != "content-length" && name != "transfer-encoding");
        let mut body = Vec::new();
        let mut ignore = |_| ();
        if !to_head && has_body(status) {
            match (is_chunked, length) {
                (true, _) => {
                    body = read_chunks(reader, &mut ignore)?
                        .unchunked
                        .unwrap_or_default();
                }
                (false, Some(length)) => read_exactly(reader, length, &mut body, &mut ignore)?,
                (false, None) => read_rest(reader, &mut body)?,
            }
        }
        let reason = words.next().unwrap_or_default().to_owned();
        return Ok(Answer {
            status,
            reason,
            headers,
            body,
            length,
        });
    }
}

/// Lines up to an empty one; `None` if there is not a single byte.
fn read_lines(reader: &mut impl BufRead) -> Result<Option<Vec<u8>>> {
    let mut raw = Vec::new();
    let mut limited = reader.take(MAX_HEAD_BYTES as u64);
    loop {
        let start = raw.len();
        limited.read_until(b'\n', &mut raw)?;
        if raw.is_empty() {
            return Ok(None);
        }
        ensure!(
            raw.ends_with(b"\n"),
            "the head does not end, or not within {MAX_HEAD_BYTES} bytes"
        );
        if raw[start..].trim_ascii().is_empty() {
            return Ok(Some(raw));
        }
    }
}

fn parse(raw: &[u8]) -> Result<(String, Vec<(String, String)>)> {
    let text = std::str::from_utf8(raw).context("the head is no text")?;
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default().to_owned();
    let mut headers = Vec::new();
    for line in lines.take_while(|line| !line.is_empty()) {
        let (name, value) = line
            .split_once(':')
            .with_context(|| format!("no header: {line}"))?;
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    Ok((first, headers))
}

fn length_of(headers: &[(String, String)]) -> Result<Option<usize>> {
    let length = find(headers, "content-length")
        .map(str::parse)
        .transpose()?;
    Ok(length)
}

fn read_exactly(
    reader: &mut impl BufRead,
    length: usize,
    into: &mut Vec<u8>,
    took: &mut impl FnMut(usize),
) -> Result<()> {
    let fits = into
        .len()
        .checked_add(length)
        .is_some_and(|sum| sum <= MAX_BODY_BYTES);
    ensure!(fits, "a body above {MAX_BODY_BYTES} bytes");
    let mut left = length;
    while left > 0 {
        let piece = reader.fill_buf()?;
        if piece.is_empty() {
            return Err(io::Error::from(ErrorKind::UnexpectedEof).into());
        }
        let taken = piece.len().min(left);
        into.extend_from_slice(&piece[..taken]);
        reader.consume(taken);
        left -= taken;
        took(taken);
    }
    Ok(())
}

fn read_chunks(reader: &mut impl BufRead, took: &mut impl FnMut(usize)) -> Result<Body> {
    let (mut raw, mut body) = (Vec::new(), Vec::new());
    loop {
        let start = raw.len();
        reader
            .take(MAX_HEAD_BYTES as u64)
            .read_until(b'\n', &mut raw)?;
        let line = std::str::from_utf8(&raw[start..])?;
        let digits = line.split(';').next().unwrap_or_default().trim();
        let length = usize::from_str_radix(digits, 16).context("no length of a chunk")?;
        if length == 0 {
            let trailers = read_lines(reader)?.context("the last chunk does not end")?;
            raw.extend_from_slice(&trailers);
            return Ok(Body {
                raw,
                unchunked: Some(body),
            });
        }
        let start = raw.len();
        read_exactly(reader, length, &mut raw, took)?;
        body.extend_from_slice(&raw[start..]);
        read_exactly(reader, 2, &mut raw, took)?;
    }
}

fn read_rest(reader: &mut impl BufRead, into: &mut Vec<u8>) -> Result<()> {
    reader.take(MAX_BODY_BYTES as u64 + 1).read_to_end(into)?;
    ensure!(
        into.len() <= MAX_BODY_BYTES,
        "a body above {MAX_BODY_BYTES} bytes"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(bytes: &[u8]) -> Result<(Head, Body)> {
        let mut reader = bytes;
        let head = read_head(&mut reader)?.context("nothing")?;
        let body = read_body(&mut reader, &head, &mut |_| ())?;
        ensure!(reader.is_empty(), "something is left");
        Ok((head, body))
    }

    #[test]
    fn a_request_keeps_its_bytes_whether_its_body_has_a_length_or_chunks() {
        let plain = b"PUT /b/k HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc";
        let (head, body) = request(plain).unwrap();
        assert_eq!([&head.raw[..], body.raw()].concat(), plain);
        assert_eq!(
            (head.header("host"), body.bytes()),
            (Some("x"), &b"abc"[..])
        );
        let chunks = b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n\
            2;a=b\r\nab\r\n1\r\nc\r\n0\r\nt: 1\r\n\r\n";
        let (head, body) = request(chunks).unwrap();
        assert_eq!([&head.raw[..], body.raw()].concat(), chunks);
        assert_eq!(body.bytes(), b"abc");
    }

    #[test]
    fn a_head_or_a_body_above_its_bound_is_refused() {
        let mut long = b"GET / HTTP/1.1\r\na: ".to_vec();
        long.resize(MAX_HEAD_BYTES + 1, b'a');
        long.extend_from_slice(b"\r\n\r\n");
        assert!(request(&long).is_err());
        let long = format!(
            "PUT / HTTP/1.1\r\ncontent-length: {}\r\n\r\n",
            MAX_BODY_BYTES + 1
        );
        let refused = request(long.as_bytes()).unwrap_err().to_string();
        assert!(refused.contains("above"), "{refused}");
        let huge = b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n";
        assert!(request(huge).unwrap_err().to_string().contains("above"));
        let mut endless = io::repeat(b'x').take(MAX_BODY_BYTES as u64 + 1);
        let mut endless = io::BufReader::new(&mut endless);
        assert!(read_rest(&mut endless, &mut Vec::new()).is_err());
    }

    #[test]
    fn a_request_that_ends_early_is_an_error_and_none_at_all_is_the_end() {
        assert!(request(b"PUT / HTTP/1.1\r\nContent-Length: 3\r\n\r\nab").is_err());
        assert!(request(b"PUT / HTTP/1.1\r\nContent-").is_err());
        assert_eq!(read_head(&mut &b""[..]).unwrap(), None);
    }

    #[test]
    fn an_answer_is_read_with_each_kind_of_body_and_never_the_provisional_one() {
        let bytes = b"HTTP/1.1 100 Continue\r\n\r\n\
            HTTP/1.1 200 OK\r\nETag: \"1\"\r\nContent-Length: 2\r\n\r\nab";
        let answer = read_answer(&mut &bytes[..], false).unwrap();
        assert_eq!(
            (answer.status, answer.header("etag"), &answer.body[..]),
            (200, Some("\"1\""), &b"ab"[..])
        );
        let chunks =
            b"HTTP/1.1 503 Slow Down\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n";
        let answer = read_answer(&mut &chunks[..], false).unwrap();
        assert_eq!(
            (&answer.reason[..], &answer.body[..]),
            ("Slow Down", &b"a"[..])
        );
        let rest = read_answer(&mut &b"HTTP/1.0 200 OK\r\n\r\nall of it"[..], false).unwrap();
        assert_eq!(rest.body, b"all of it");
    }

    #[test]
    fn an_answer_to_head_has_the_length_and_no_body() {
        let bytes = b"HTTP/1.1 200 OK\r\ncontent-length: 77\r\n\r\n";
        let answer = read_answer(&mut &bytes[..], true).unwrap();
        assert_eq!(answer.encode(true, false), bytes);
        let none = Answer {
            status: 204,
            reason: "No Content".to_owned(),
            ..Answer::default()
        };
        assert_eq!(
            none.encode(false, false),
            b"HTTP/1.1 204 No Content\r\n\r\n"
        );
    }

    #[test]
    fn a_head_for_another_body_says_the_new_length_once() {
        let (head, _) =
            request(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\na").unwrap();
        let changed = String::from_utf8(head.with_length(20)).unwrap();
        assert_eq!(
            changed,
            "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 20\r\n\r\n"
        );
    }
}

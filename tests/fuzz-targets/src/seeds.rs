//! Seeds: golden bytes, and small things that the formats' own writers make.

/// The bytes of golden text: two hex digits each, white space apart.
///
/// # Panics
/// If it is not hex.
#[must_use]
pub fn from_hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .chars()
        .filter(|c| !c.is_whitespace())
        .map(|c| {
            let digit = c.to_digit(16).expect("golden text is hex");
            u8::try_from(digit).expect("a digit is below 16")
        })
        .collect();
    digits
        .chunks(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect()
}

/// `head` and `bytes` in one.
#[must_use]
pub fn prefixed(head: &[u8], bytes: &[u8]) -> Vec<u8> {
    [head, bytes].concat()
}

/// Each text as a seed.
#[must_use]
pub fn texts(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

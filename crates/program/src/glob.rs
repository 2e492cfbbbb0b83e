//! Core: patterns of ids.

/// `*` stands for any run of characters; everything else for itself. Linear in the text for each
/// star, and without recursion.
#[must_use]
pub fn matches(glob: &str, text: &str) -> bool {
    let (glob, text) = (glob.as_bytes(), text.as_bytes());
    let (mut g, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if g < glob.len() && glob[g] == b'*' {
            star = Some((g + 1, t));
            g += 1;
        } else if g < glob.len() && glob[g] == text[t] {
            g += 1;
            t += 1;
        } else if let Some((after, from)) = star {
            star = Some((after, from + 1));
            g = after;
            t = from + 1;
        } else {
            return false;
        }
    }
    glob[g..].iter().all(|b| *b == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_glob_with_many_stars_ends_soon() {
        assert!(matches("*a*b*", "xxaxxbxx"));
        assert!(!matches("a*", "ba"));
        assert!(matches("*", ""));
        let stars = "a*".repeat(30) + "b";
        assert!(!matches(&stars, &"a".repeat(64)));
    }

    #[test]
    fn a_pattern_fits_whole_ids_and_a_star_stands_for_any_characters() {
        for (pattern, text, expected) in [
            ("plc-1", "plc-1", true),
            ("plc-1", "plc-12", false),
            ("plc-1", "xplc-1", false),
            ("plc-*", "plc-", true),
            ("plc-*", "plc-12", true),
            ("plc-*", "pump", false),
            ("*", "anything", true),
            ("*-7", "a-7", true),
            ("*-7", "a-7-7", true),
            ("*-7", "a-78", false),
            ("a*b*c", "a-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("a*b*c", "abcb", false),
            ("a*a", "a", false),
            ("a**b", "ab", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }
}

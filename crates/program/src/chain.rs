//! Core: an error with its causes, on one line.

use std::error::Error;

/// `error` and what caused it, outermost first, joined by `: `. A cause that the text before it
/// already ends with is not repeated.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let said = cause.to_string();
        if !text.ends_with(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot open {0}")]
    struct Open(&'static str, #[source] io::Error);

    #[derive(Debug, thiserror::Error)]
    #[error("no journal: {0}")]
    struct Journal(#[source] Open);

    #[test]
    fn each_cause_stands_once() {
        let open = || Open("a", io::Error::other("no room"));
        assert_eq!(chain(&open()), "cannot open a: no room");
        // This one prints its cause and returns it too.
        assert_eq!(
            chain(&Journal(open())),
            "no journal: cannot open a: no room"
        );
    }
}

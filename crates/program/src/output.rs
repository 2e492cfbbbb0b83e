//! Standard output, standard error, exit codes.
//!
//! | code | meaning |
//! |---|---|
//! | 0 | it worked, and the answer is yes |
//! | 1 | it worked, and the answer is no |
//! | 2 | it did not work; standard error says why |

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

/// Writes a result to standard output. A reader that has closed its end, as `head` does, is no
/// error.
///
/// # Errors
/// If the output cannot be written for another reason.
pub fn print(text: &str) -> io::Result<()> {
    let written = forgive_closed(io::stdout().write_all(text.as_bytes()));
    written.map_err(|error| {
        let told = format!("cannot write to standard output: {error}");
        io::Error::new(error.kind(), told)
    })
}

/// Writes a line to standard error.
pub fn complain(text: &str) {
    // With standard error closed there is nobody left to tell.
    let _ = writeln!(io::stderr(), "{text}");
}

/// The exit code for the end of `program`. An error is written to standard error first, with its
/// causes.
pub fn exit_code<E: Display>(program: &str, ended: Result<bool, E>) -> ExitCode {
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            complain(&format!("{program}: {error:#}"));
            ExitCode::from(2)
        }
    }
}

fn forgive_closed(written: io::Result<()>) -> io::Result<()> {
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_reader_that_closed_its_end_is_forgiven() {
        let with = |kind| forgive_closed(Err(io::Error::from(kind)));
        assert!(with(io::ErrorKind::BrokenPipe).is_ok());
        assert!(with(io::ErrorKind::StorageFull).is_err());
    }

    #[test]
    fn yes_no_and_failed_have_codes_of_their_own() {
        let code = |ended: Result<bool, &str>| format!("{:?}", exit_code("test", ended));
        let expected = |code: u8| format!("{:?}", ExitCode::from(code));
        assert_eq!(code(Ok(true)), expected(0));
        assert_eq!(code(Ok(false)), expected(1));
        assert_eq!(code(Err("of a test")), expected(2));
    }
}

//! The part of `--check` beyond the text of a configuration: does this machine have the files,
//! folders, programs and addresses that it names?
//!
//! A fault cannot work until somebody mends it. A warning may come right by itself: a file that does
//! not exist yet, an address that the running agent holds.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;

use headwater_program::faults::Faults;
use headwater_program::output::complain;
use headwater_proto::text::MAX_DICTIONARY_BYTES;

use crate::config::Config;
use crate::pipeline::text;
use crate::source::accept::socket_path;
use headwater_program::findings::{Findings, existing_folder_of, possible_folder};

/// Checks a configuration's text, and what it names on this machine. Warnings go to standard error.
///
/// # Errors
/// [`Faults`]: every one.
pub fn check(text: &str, host_name: &str) -> Result<(), Faults> {
    let (config, mut faults) = Config::parse_leniently(text, host_name);
    let found = config.as_ref().map(examine).unwrap_or_default();
    for warning in &found.warnings {
        complain(&format!("warning: {warning}"));
    }
    faults.extend(found.faults);
    if faults.is_empty() {
        Ok(())
    } else {
        Err(Faults(faults))
    }
}

/// Looks at everything that `config` names on this machine.
#[must_use]
pub fn examine(config: &Config) -> Findings {
    let mut found = Findings::default();
    if let Some((_, path)) = &config.collector.login
        && let Err(error) = password(path)
    {
        found.fault("collector.password_file", path.display(), &error);
    }
    if let Some(path) = &config.dictionary
        && let Err(error) = dictionary(path)
    {
        found.fault("text.dictionary", path.display(), &error);
    }
    if let Err(error) = possible_folder(&config.spool.dir) {
        found.fault("spool.dir", config.spool.dir.display(), &error);
    }
    // The spool's folder is made before anything is put in one above it.
    let is_made = |path: &Path| {
        let folder = path.parent().unwrap_or(path);
        !folder.exists() && config.spool.dir.starts_with(folder)
    };
    if let Some(path) = config.status.file.as_deref().filter(|path| !is_made(path))
        && let Err(error) = replaceable_file(path)
    {
        found.fault("status.file", path.display(), &error);
    }
    if let Some(path) = config
        .status
        .socket
        .as_deref()
        .filter(|path| !is_made(path))
    {
        socket_path(
            "status.socket",
            path,
            &path.display().to_string(),
            &mut found,
        );
    }
    for source in &config.sources {
        source.kind.examine(&source.name, &mut found);
    }
    found
}

/// Whether a file can be put at `path`, in place of one that may be there.
fn replaceable_file(path: &Path) -> io::Result<()> {
    let folder = existing_folder_of(path)?;
    if path.is_dir() {
        return Err(io::Error::other("is a folder; name a file in it"));
    }
    possible_folder(folder)
}

/// The password in a file, without the line's end.
///
/// # Errors
/// The system's.
pub fn password(path: &Path) -> io::Result<String> {
    Ok(fs::read_to_string(path)?.trim_end().to_owned())
}

/// Why a file is of no use as a dictionary of log lines.
#[derive(Debug, thiserror::Error)]
pub enum DictionaryError {
    /// It cannot be read.
    #[error("{0}")]
    Read(#[from] io::Error),
    /// It is something else, or cut off.
    #[error(
        "not a zstd dictionary of at most {MAX_DICTIONARY_BYTES} bytes; `headwater-collector \
         dictionary` trains one"
    )]
    NotOne,
}

/// Reads a dictionary of log lines.
///
/// # Errors
/// [`DictionaryError`].
pub fn dictionary(path: &Path) -> Result<Arc<[u8]>, DictionaryError> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(MAX_DICTIONARY_BYTES as u64 + 1)
        .read_to_end(&mut bytes)?;
    if text::is_whole(&bytes) {
        Ok(bytes.into())
    } else {
        Err(DictionaryError::NotOne)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, UdpSocket};

    /// The findings in `text`, whose places are below `folder`.
    fn findings(folder: &Path, text: &str) -> Findings {
        let own = "[spool]\ndir = \"DIR/spool\"\n[status]\nfile = \"\"\nsocket = \"\"\n";
        let text = [text, own]
            .concat()
            .replace("DIR", &folder.display().to_string());
        examine(&Config::parse(&text, "host").unwrap())
    }

    fn only_fault(folder: &Path, text: &str) -> String {
        let found = findings(folder, text);
        assert_eq!(
            (found.faults.len(), found.warnings.len()),
            (1, 0),
            "{found:?}"
        );
        found.faults.into_iter().next().unwrap()
    }

    fn only_warning(folder: &Path, text: &str) -> String {
        let found = findings(folder, text);
        assert_eq!(
            (found.faults.len(), found.warnings.len()),
            (0, 1),
            "{found:?}"
        );
        found.warnings.into_iter().next().unwrap()
    }

    #[test]
    fn a_file_that_may_appear_is_a_warning_and_one_that_cannot_be_read_a_fault() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path();
        let file = |name: &str| format!("[[file]]\nname = \"f\"\npath = \"DIR/{name}\"\n");
        fs::write(dir.join("there.log"), "").unwrap();
        assert_eq!(findings(dir, &file("there.log")), Findings::default());
        let told = only_warning(dir, &file("later.log"));
        assert!(told.starts_with("file.f.path = \"") && told.contains("does not exist yet"));
        assert!(only_warning(dir, &file("*.log")).contains("patterns are not expanded"));
        assert!(only_fault(dir, &file("")).contains("is a folder"));
        assert!(only_fault(dir, &file("there.log/x")).contains("Not a directory"));
    }

    #[test]
    fn a_replay_without_its_file_is_a_fault() {
        let temp = tempfile::tempdir().unwrap();
        let told = only_fault(
            temp.path(),
            "[[replay]]\nname = \"r\"\npath = \"DIR/no.csv\"\n",
        );
        assert!(
            told.starts_with("replay.r.path = \"") && told.contains("No such file"),
            "{told}"
        );
    }

    #[test]
    fn a_program_is_looked_for_where_it_would_be_started_from() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path();
        let exec = |program: &str| format!("[[exec]]\nname = \"e\"\ncommand = [\"{program}\"]\n");
        assert_eq!(findings(dir, &exec("sh")), Findings::default());
        assert!(only_fault(dir, &exec("no-such-program")).contains("no folder of PATH"));
        assert!(only_fault(dir, &exec("/no/such/program")).contains("No such file"));
        fs::write(dir.join("notes"), "").unwrap();
        assert!(only_fault(dir, &exec("DIR/notes")).contains("is not a program"));
    }

    #[test]
    fn a_taken_address_is_a_warning_with_its_holder_and_a_strange_one_a_fault() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path();
        let lines = |listen: &str| format!("[[lines]]\nname = \"l\"\nlisten = \"{listen}\"\n");
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        for taken in [
            format!("tcp://{}", tcp.local_addr().unwrap()),
            format!("udp://{}", udp.local_addr().unwrap()),
        ] {
            let told = only_warning(dir, &lines(&taken));
            let me = format!("(process {}) holds it now", std::process::id());
            assert!(
                told.starts_with(&format!("lines.l.listen = \"{taken}\": ")) && told.contains(&me)
            );
        }
        assert_eq!(
            findings(dir, &lines("unix:DIR/a.sock")),
            Findings::default()
        );
        assert!(only_fault(dir, &lines("unix:DIR/no/a.sock")).contains("there is no folder"));
        fs::write(dir.join("notes"), "").unwrap();
        assert!(only_fault(dir, &lines("unix:DIR/notes")).contains("something else than a socket"));
    }

    #[test]
    fn what_the_agent_itself_writes_must_have_a_place() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path();
        let with = |spool: &str, file: &str, socket: &str| {
            let text = format!(
                "[spool]\ndir = \"DIR/{spool}\"\n[status]\nfile = \"DIR/{file}\"\nsocket = \"DIR/{socket}\"\n"
            );
            let text = text.replace("DIR", &dir.display().to_string());
            examine(&Config::parse(&text, "host").unwrap())
        };
        // A folder that the spool's one lies in is made with it.
        assert_eq!(
            with("new/spool", "new/s.json", "new/s.sock"),
            Findings::default()
        );
        fs::write(dir.join("notes"), "").unwrap();
        let found = with("notes/spool", "no/s.json", "notes");
        let begins = ["spool.dir = ", "status.file = ", "status.socket = "];
        assert_eq!(found.faults.len(), begins.len(), "{found:?}");
        for (told, begin) in found.faults.iter().zip(begins) {
            assert!(told.starts_with(begin), "{told}");
        }

        let served = std::os::unix::net::UnixListener::bind(dir.join("s.sock")).unwrap();
        let found = with("spool", "s.json", "s.sock");
        assert!(
            found.warnings[0].contains("somebody listens there now"),
            "{found:?}"
        );
        drop(served);
        assert_eq!(with("spool", "s.json", "s.sock"), Findings::default());
    }

    #[test]
    fn a_password_or_dictionary_that_is_not_there_is_a_fault() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path();
        let login = "[collector]\nuser = \"u\"\npassword_file = \"DIR/password\"\n";
        assert!(only_fault(dir, login).starts_with("collector.password_file = \""));
        fs::write(dir.join("password"), "secret\n").unwrap();
        assert_eq!(findings(dir, login), Findings::default());
        assert_eq!(password(&dir.join("password")).unwrap(), "secret");

        let text = "[text]\ndictionary = \"DIR/lines.dict\"\n";
        assert!(only_fault(dir, text).contains("No such file"));
        fs::write(dir.join("lines.dict"), "not one").unwrap();
        assert!(only_fault(dir, text).contains("not a zstd dictionary"));
    }
}

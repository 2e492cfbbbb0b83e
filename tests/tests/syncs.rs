//! What has to last a power cut is synced before it has its name, and its name before anything is told of it: as the
//! system calls of this program show, which runs itself once more under strace.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use headwater_lake::{LocalStore, Put, Store, Swap};
use headwater_spool::{Config, Log, RealDisk};
use headwater_tests::trace::{self, Call};

/// Set where a test is to do what its other process looks at: the folder for it.
const TRACED: &str = "HEADWATER_TRACED";
/// Files that are written, synced and named.
const CALLS: &str =
    "trace=write,pwrite64,fdatasync,fsync,link,linkat,rename,renameat,renameat2,mkdir,mkdirat";
/// Calls that name a file: the texts of each are the old name and the new one.
const NAMING: [&str; 5] = ["link", "linkat", "rename", "renameat", "renameat2"];

/// The system calls of `act` in a folder, which another process of this test makes; `None` in that process.
fn traced(test: &str, act: impl FnOnce(&Path)) -> Option<(PathBuf, Vec<Call>)> {
    if let Some(folder) = std::env::var_os(TRACED) {
        act(Path::new(&folder));
        return None;
    }
    let place = tempfile::tempdir().expect("a temporary folder");
    // Without a link on the way: strace tells the names of descriptors as the system does.
    let folder = place
        .path()
        .canonicalize()
        .expect("it was just made")
        .join("data");
    fs::create_dir(&folder).expect("an empty folder takes another one");
    let trace = place.path().join("trace");
    let status = Command::new("strace")
        .args(["-f", "-y", "-xx", "-s", "8192", "-e", CALLS, "-o"])
        .arg(&trace)
        .arg(std::env::current_exe().expect("this program has a path"))
        .args(["--exact", test])
        .env(TRACED, &folder)
        .status()
        .expect("strace is in the package of that name; tests/run installs it");
    assert!(status.success(), "{status}");
    let text = fs::read_to_string(&trace).expect("strace wrote it");
    Some((folder, trace::read(&text)))
}

/// The first sync of a file or folder that began after a line and ended well.
fn synced_after(calls: &[Call], path: &Path, line: usize) -> Option<usize> {
    let ending = format!("<{}>", path.display());
    let is_sync = |call: &&Call| matches!(&*call.name, "fdatasync" | "fsync");
    let mut syncs = calls.iter().filter(is_sync);
    let sync = syncs.find(|call| call.began > line && call.file().ends_with(&ending))?;
    (sync.result == Some(0)).then_some(sync.ended)
}

/// The new names below a folder, in order: where the call began and ended, the old name, the new one.
fn named(calls: &[Call], folder: &Path) -> Vec<(usize, usize, PathBuf, PathBuf)> {
    let root = folder.to_str().expect("a path in UTF-8");
    let naming = calls.iter().filter(|call| NAMING.contains(&&*call.name));
    let names = |call: &Call| {
        let text = String::from_utf8_lossy(&call.data).into_owned();
        let at = text.rfind(root)?;
        let (old, new) = (text.get(..at)?, text.get(at..)?);
        (call.result == Some(0)).then(|| (call.began, call.ended, old.into(), new.into()))
    };
    naming.filter_map(names).collect()
}

#[test]
fn an_object_of_a_lake_and_its_name_are_synced() {
    let name = "an_object_of_a_lake_and_its_name_are_synced";
    let Some((folder, calls)) = traced(name, |folder| {
        let store = LocalStore::new(folder).expect("the folder is there");
        let put = store.put_if_absent("a/new", b"1").expect("it is written");
        assert_eq!(put, Put::Created);
        let swapped = store.swap("b/owner", None, b"2").expect("it is written");
        assert!(matches!(swapped, Swap::Done(_)));
        store.replace("c/catalog", b"3").expect("it is written");
        store.stage("stage/file", b"4").expect("it is written");
        store.sync_stage(&["stage/file"]).expect("it is synced");
        let put = store.publish("stage/file", "d/e/file");
        assert_eq!(put.expect("it has a name"), Put::Created);
    }) else {
        return;
    };
    let named = named(&calls, &folder);
    let new: Vec<_> = named
        .iter()
        .map(|(_, _, _, new)| new.strip_prefix(&folder))
        .collect();
    let expected = ["a/new", "b/owner", "c/catalog", "d/e/file"].map(|name| Ok(Path::new(name)));
    assert_eq!(new, expected);
    for (at, (began, ended, old, new)) in named.iter().enumerate() {
        let synced = synced_after(&calls, old, 0);
        assert!(
            synced.is_some_and(|line| line < *began),
            "{new:?}: its bytes"
        );
        let parent = new.parent().expect("it is below the folder");
        let next = named.get(at + 1).map_or(usize::MAX, |next| next.0);
        let synced = synced_after(&calls, parent, *ended);
        assert!(synced.is_some_and(|line| line < next), "{new:?}: its name");
    }
    let folders = calls.iter().filter(|call| call.name.starts_with("mkdir"));
    let mut made = 0;
    for call in folders.filter(|call| call.result == Some(0)) {
        let path = PathBuf::from(String::from_utf8_lossy(&call.data).into_owned());
        let parent = path.parent().expect("it is below the folder");
        assert!(
            synced_after(&calls, parent, call.ended).is_some(),
            "{path:?}"
        );
        made += 1;
    }
    assert!(made >= 6, "{made}");
}

#[test]
fn a_record_of_a_log_is_synced_in_a_file_whose_name_is() {
    const MARKER: &[u8] = b"what has to last";
    let name = "a_record_of_a_log_is_synced_in_a_file_whose_name_is";
    let Some((folder, calls)) = traced(name, |folder| {
        let disk = RealDisk::open(folder).expect("the folder is there");
        let config = Config {
            // Whatever others have left of the disk.
            fs_reserve_percent: 0,
            fs_reserve_bytes: 0,
            ..Config::default()
        };
        let (mut log, _) = Log::open(disk, config).expect("it is empty");
        log.append(1, MARKER, &|_| {}).expect("there is room");
        log.sync().expect("the disk is good");
    }) else {
        return;
    };
    let written = calls
        .iter()
        .find(|call| call.name == "pwrite64" && call.holds(MARKER));
    let written = written.expect("it is written");
    let file = written
        .file()
        .split_once('<')
        .expect("strace tells the name")
        .1;
    let file = Path::new(file.trim_end_matches('>'));
    assert_eq!(file.parent(), Some(&*folder));
    assert!(
        synced_after(&calls, file, written.ended).is_some(),
        "its bytes"
    );
    assert!(synced_after(&calls, &folder, 0).is_some(), "its name");
}

//! The store in front of a service that keeps objects as S3 does, and fails as it is told to.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

use headwater_lake::{Aside, Put, Sha256, Store as _, StoreError, Swap};

use super::S3Store;
use crate::bucket::{Bucket, RawBucket};

/// What the service does with the next request of a kind, once.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Fault {
    /// An error of this status and code; nothing was done.
    Code(u16, &'static str),
    /// It is done, and the connection breaks before the answer.
    Silent,
    /// Half of the body comes.
    Half,
    /// It is answered that it is done, with an error in the body.
    ErrorInBody,
}

#[derive(Debug, Default)]
struct Service {
    objects: BTreeMap<String, (Vec<u8>, Option<String>)>,
    uploads: BTreeMap<String, BTreeMap<u32, Vec<u8>>>,
    hashes: BTreeMap<String, String>,
    faults: VecDeque<(&'static str, Fault)>,
    /// Operations in the order they came.
    log: Vec<String>,
    knows_conditions: bool,
}

struct Request {
    method: String,
    path: String,
    query: BTreeMap<String, String>,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

fn answer(status: u16, body: impl Into<Vec<u8>>) -> Answer {
    Answer {
        status,
        headers: Vec::new(),
        body: body.into(),
    }
}

fn error(status: u16, code: &str) -> Answer {
    let body = format!(
        "<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>words</Message></Error>"
    );
    answer(status, body)
}

fn etag(bytes: &[u8]) -> String {
    format!("\"{}\"", &Sha256::of(bytes).to_string()[..32])
}

impl Request {
    fn read(stream: &mut BufReader<TcpStream>) -> Option<Self> {
        let mut line = String::new();
        if stream.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let mut words = line.split_whitespace();
        let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
        let mut headers = BTreeMap::new();
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).ok()?;
            let Some((name, value)) = line.trim_end().split_once(':') else {
                break;
            };
            headers.insert(name.to_lowercase(), value.trim().to_owned());
        }
        if headers.get("expect").is_some_and(|it| it.contains("100")) {
            stream
                .get_mut()
                .write_all(b"HTTP/1.1 100 Continue\r\n\r\n")
                .ok()?;
        }
        let len = headers
            .get("content-length")
            .map_or(Some(0), |len| len.parse().ok())?;
        let mut body = vec![0; len];
        stream.read_exact(&mut body).ok()?;
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        Some(Self {
            method,
            path: path.replace("%2F", "/"),
            query: pairs
                .map(|(k, v)| (k.to_owned(), v.replace("%2F", "/")))
                .collect(),
            headers,
            body,
        })
    }

    fn operation(&self) -> &'static str {
        let has = |key: &str| self.query.contains_key(key);
        match self.method.as_str() {
            "GET" if has("uploads") => "list uploads",
            "GET" if has("list-type") => "list",
            "GET" => "get",
            "PUT" if has("partNumber") => "part",
            "PUT" => "put",
            "POST" if has("uploads") => "begin",
            "POST" => "complete",
            "DELETE" if has("uploadId") => "abort",
            "DELETE" => "delete",
            _ => "other",
        }
    }

    fn key(&self) -> &str {
        self.path.strip_prefix("/fleet/").unwrap_or_default()
    }
}

impl Service {
    fn take(&mut self, request: &Request) -> (Answer, Option<Fault>) {
        let operation = request.operation();
        self.log.push(operation.to_owned());
        let fault = match self.faults.front() {
            Some((of, _)) if *of == operation => self.faults.pop_front().map(|(_, fault)| fault),
            _ => None,
        };
        if let Some(Fault::Code(status, code)) = fault {
            return (error(status, code), None);
        }
        (self.carry_out(operation, request), fault)
    }

    fn is_forbidden(&self, request: &Request) -> bool {
        let present = self
            .objects
            .get(request.key())
            .map(|(bytes, _)| etag(bytes));
        let none_match = request.headers.contains_key("if-none-match");
        let matches = request.headers.get("if-match");
        self.knows_conditions
            && (none_match && present.is_some()
                || matches.is_some_and(|tag| present.as_ref().is_some_and(|it| it != tag)))
    }

    fn carry_out(&mut self, operation: &str, request: &Request) -> Answer {
        let key = request.key().to_owned();
        let hash = || request.headers.get("x-amz-meta-sha256").cloned();
        match operation {
            "put" => {
                if self.is_forbidden(request) {
                    return error(412, "PreconditionFailed");
                }
                if request.headers.contains_key("if-match") && !self.objects.contains_key(&key) {
                    return error(404, "NoSuchKey");
                }
                let tag = etag(&request.body);
                self.objects.insert(key, (request.body.clone(), hash()));
                Answer {
                    headers: vec![("ETag", tag)],
                    ..answer(200, "")
                }
            }
            "get" => self.get(request),
            "list" => self.list(request),
            "begin" => {
                let id = format!("u{}", self.log.len());
                self.uploads.insert(id.clone(), BTreeMap::new());
                self.hashes.extend(hash().map(|hash| (id.clone(), hash)));
                answer(
                    200,
                    format!(
                        "<InitiateMultipartUploadResult><UploadId>{id}</UploadId></InitiateMultipartUploadResult>"
                    ),
                )
            }
            "part" => {
                let number = request.query["partNumber"].parse().unwrap();
                let Some(parts) = self.uploads.get_mut(&request.query["uploadId"]) else {
                    return error(404, "NoSuchUpload");
                };
                parts.insert(number, request.body.clone());
                Answer {
                    headers: vec![("ETag", etag(&request.body))],
                    ..answer(200, "")
                }
            }
            "complete" => {
                if self.is_forbidden(request) {
                    return error(412, "PreconditionFailed");
                }
                let id = &request.query["uploadId"];
                let Some(parts) = self.uploads.remove(id) else {
                    return error(404, "NoSuchUpload");
                };
                let bytes: Vec<u8> = parts.into_values().flatten().collect();
                self.objects.insert(key, (bytes, self.hashes.remove(id)));
                answer(200, "<CompleteMultipartUploadResult/>")
            }
            "abort" => {
                self.uploads.remove(&request.query["uploadId"]);
                answer(204, "")
            }
            "delete" => {
                self.objects.remove(&key);
                answer(204, "")
            }
            _ => answer(200, "<ListMultipartUploadsResult/>"),
        }
    }

    fn get(&self, request: &Request) -> Answer {
        let Some((bytes, hash)) = self.objects.get(request.key()) else {
            return error(404, "NoSuchKey");
        };
        if request
            .headers
            .get("if-match")
            .is_some_and(|tag| *tag != etag(bytes))
        {
            return error(412, "PreconditionFailed");
        }
        let mut headers = vec![("ETag", etag(bytes))];
        headers.extend(hash.clone().map(|hash| ("x-amz-meta-sha256", hash)));
        let Some(range) = request.headers.get("range") else {
            return Answer {
                headers,
                ..answer(200, bytes.clone())
            };
        };
        let (first, last) = range
            .strip_prefix("bytes=")
            .unwrap()
            .split_once('-')
            .unwrap();
        let size = bytes.len();
        let (first, next) = match (first.parse::<usize>(), last.parse::<usize>()) {
            (Err(_), Ok(tail)) => (size.saturating_sub(tail), size),
            (Ok(first), Ok(last)) => (first, (last + 1).min(size)),
            _ => panic!("{range}"),
        };
        if first >= size {
            return error(416, "InvalidRange");
        }
        headers.push((
            "Content-Range",
            format!("bytes {first}-{}/{size}", next - 1),
        ));
        Answer {
            headers,
            ..answer(206, &bytes[first..next])
        }
    }

    fn list(&self, request: &Request) -> Answer {
        let most: usize = request.query["max-keys"].parse().unwrap();
        // Small pages, so that lists have several.
        let (page, prefix) = (most.min(2), &request.query["prefix"]);
        let after = request
            .query
            .get("continuation-token")
            .cloned()
            .unwrap_or_default();
        let found = self
            .objects
            .iter()
            .filter(|(key, _)| key.starts_with(prefix) && **key > after);
        let found: Vec<_> = found.take(page + 1).collect();
        let is_cut = found.len() > page && most > page;
        let mut body = format!("<ListBucketResult><IsTruncated>{is_cut}</IsTruncated>");
        for (key, (bytes, _)) in found.iter().take(page) {
            body += &format!(
                "<Contents><Key>{key}</Key><Size>{}</Size></Contents>",
                bytes.len()
            );
        }
        if is_cut {
            body += &format!(
                "<NextContinuationToken>{}</NextContinuationToken>",
                found[page - 1].0
            );
        }
        answer(200, body + "</ListBucketResult>")
    }
}

fn serve(stream: TcpStream, service: &Mutex<Service>) -> Option<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let request = Request::read(&mut stream)?;
        let (mut answer, fault) = lock(service).take(&request);
        if fault == Some(Fault::Silent) {
            return None;
        }
        if fault == Some(Fault::ErrorInBody) {
            answer = error(200, "InternalError");
        }
        let mut head = format!("HTTP/1.1 {} X\r\n", answer.status);
        for (name, value) in &answer.headers {
            head += &format!("{name}: {value}\r\n");
        }
        if answer.status != 204 {
            head += &format!("Content-Length: {}\r\n", answer.body.len());
        }
        stream
            .get_mut()
            .write_all(format!("{head}\r\n").as_bytes())
            .ok()?;
        if fault == Some(Fault::Half) {
            let half = &answer.body[..answer.body.len() / 2];
            stream.get_mut().write_all(half).ok()?;
            return None;
        }
        stream.get_mut().write_all(&answer.body).ok()?;
    }
}

fn lock(service: &Mutex<Service>) -> std::sync::MutexGuard<'_, Service> {
    service.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Rig {
    service: Arc<Mutex<Service>>,
    store: S3Store,
    _stage: tempfile::TempDir,
}

impl Rig {
    fn new() -> Self {
        let service = Arc::new(Mutex::new(Service {
            knows_conditions: true,
            ..Service::default()
        }));
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::clone(&service);
        // They end with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || serve(stream, &shared));
            }
        });
        let stage = tempfile::tempdir().unwrap();
        let raw = RawBucket {
            region: "eu-west-1".to_owned(),
            endpoint: format!("http://{address}"),
            stage_dir: stage.path().display().to_string(),
            ..RawBucket::default()
        };
        let mut problems = Vec::new();
        let bucket = Bucket::check("lake", "s3://fleet/lake", raw, &mut problems).unwrap();
        assert_eq!(problems, [""; 0]);
        let store = S3Store::new(bucket).unwrap();
        let access = store.shared.client.clone();
        super::wait(async move { access.set(client(address)).await }).unwrap();
        Self {
            service,
            store,
            _stage: stage,
        }
    }

    fn fail(&self, operation: &'static str, faults: &[Fault]) {
        let mut service = lock(&self.service);
        service.log.clear();
        service.faults = faults
            .iter()
            .map(|fault| (operation, fault.clone()))
            .collect();
    }

    fn log(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.service).log)
    }

    fn object(&self, path: &str) -> Option<Vec<u8>> {
        let service = lock(&self.service);
        service
            .objects
            .get(&format!("lake/{path}"))
            .map(|(bytes, _)| bytes.clone())
    }
}

/// A client with credentials, wherever the test runs.
fn client(address: SocketAddr) -> aws_sdk_s3::Client {
    use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region, retry::RetryConfig};
    use aws_smithy_http_client::Builder;
    aws_sdk_s3::Client::from_conf(
        aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .http_client(Builder::new().build_http())
            .retry_config(RetryConfig::disabled())
            .region(Region::new("eu-west-1"))
            .credentials_provider(Credentials::new("key", "secret", None, None, "test"))
            .endpoint_url(format!("http://{address}"))
            .force_path_style(true)
            .build(),
    )
}

const PATH: &str = "samples/a.parquet";

#[test]
fn an_object_is_created_once_and_replaced_as_it_was_read() {
    let rig = Rig::new();
    let store = &rig.store;
    assert_eq!(store.put_if_absent(PATH, b"one").unwrap(), Put::Created);
    assert_eq!(store.put_if_absent(PATH, b"two").unwrap(), Put::Exists);
    let read = store.get_tagged(PATH).unwrap().unwrap();
    assert_eq!(&read.bytes[..], b"one");
    let Swap::Done(tag) = store.swap(PATH, Some(&read.tag), b"three").unwrap() else {
        panic!("it is as it was read");
    };
    assert_eq!(
        store.swap(PATH, Some(&read.tag), b"four").unwrap(),
        Swap::Changed
    );
    assert_eq!(store.swap(PATH, None, b"four").unwrap(), Swap::Changed);
    assert_eq!(
        store.swap("not/there", Some(&tag), b"x").unwrap(),
        Swap::Changed
    );
    assert_eq!(&store.get(PATH).unwrap()[..], b"three");
    store.replace(PATH, b"five").unwrap();
    assert_eq!(store.size(PATH).unwrap(), Some(4));
    store.delete(PATH).unwrap();
    store.delete(PATH).unwrap();
    assert_eq!(store.size(PATH).unwrap(), None);
    assert_eq!(store.find(PATH).unwrap(), None);
    assert!(matches!(store.open(PATH), Err(StoreError::Missing { .. })));
    store.replace("empty", b"").unwrap();
    assert_eq!(store.size("empty").unwrap(), Some(0));
    assert_eq!(store.open("empty").unwrap().size(), 0);
}

#[test]
fn a_conflict_says_nothing_of_what_is_there() {
    let rig = Rig::new();
    let conflict = Fault::Code(409, "ConditionalRequestConflict");
    rig.fail("put", &[conflict.clone(), conflict.clone()]);
    assert_eq!(rig.store.put_if_absent(PATH, b"one").unwrap(), Put::Created);
    assert_eq!(rig.log(), ["put"; 3]);
    // One that lasts is an error, never "it exists".
    rig.fail(
        "put",
        &[const { Fault::Code(409, "ConditionalRequestConflict") }; 4],
    );
    let error = rig.store.put_if_absent("b", b"one").unwrap_err();
    assert!(error.is_outage(), "{error}");
    assert_eq!(rig.object("b"), None);
}

#[test]
fn an_answer_that_is_lost_leaves_our_own_object_there() {
    let rig = Rig::new();
    rig.fail("put", &[Fault::Silent]);
    // Whoever meets it compares.
    assert_eq!(rig.store.put_if_absent(PATH, b"one").unwrap(), Put::Exists);
    assert_eq!(rig.object(PATH).unwrap(), b"one");
    rig.store.stage("s/f", b"rows").unwrap();
    rig.fail("put", &[Fault::Silent]);
    assert_eq!(rig.store.publish("s/f", "t/f").unwrap(), Put::Exists);
    rig.log();
    assert_eq!(rig.store.sha256("t/f").unwrap(), Sha256::of(b"rows"));
    assert_eq!(
        rig.log(),
        ["get"],
        "the hash is not reckoned from the bytes"
    );
    rig.fail("get", &[Fault::Half]);
    assert_eq!(&rig.store.get(PATH).unwrap()[..], b"one");
    assert_eq!(rig.log(), ["get"; 2]);
}

#[test]
fn a_service_that_is_slow_or_refuses_is_asked_once() {
    let rig = Rig::new();
    for fault in [
        Fault::Code(503, "SlowDown"),
        Fault::Code(403, "AccessDenied"),
    ] {
        rig.fail("put", &[fault]);
        assert!(
            rig.store
                .put_if_absent(PATH, b"one")
                .unwrap_err()
                .is_outage()
        );
        assert_eq!(rig.log(), ["put"]);
    }
    rig.fail("get", &[Fault::Code(404, "NoSuchBucket")]);
    let error = rig.store.find(PATH).unwrap_err();
    assert!(
        matches!(error, StoreError::Denied { .. }),
        "a bucket that is gone is no empty lake: {error}"
    );
}

#[test]
fn a_service_without_conditions_is_refused() {
    let rig = Rig::new();
    rig.store.prove().unwrap();
    rig.store.prove().unwrap();
    lock(&rig.service).knows_conditions = false;
    let error = rig.store.prove().unwrap_err();
    assert!(error.to_string().contains("If-None-Match"), "{error}");
}

#[test]
fn what_is_set_aside_bears_the_other_name_alone() {
    let rig = Rig::new();
    let store = &rig.store;
    store.replace("a", b"one").unwrap();
    assert_eq!(store.set_aside("a", "b").unwrap(), Aside::Moved);
    assert_eq!(
        (rig.object("a"), rig.object("b")),
        (None, Some(b"one".to_vec()))
    );
    store.replace("a", b"two").unwrap();
    assert_eq!(store.set_aside("a", "b").unwrap(), Aside::Taken);
    assert!(matches!(
        store.set_aside("c", "d"),
        Err(StoreError::Missing { .. })
    ));
    // A start that was cut off between the two.
    store.replace("a", b"one").unwrap();
    assert_eq!(store.set_aside("a", "b").unwrap(), Aside::Moved);
    assert_eq!(rig.object("a"), None);
}

#[test]
fn lists_have_all_pages_in_order() {
    let rig = Rig::new();
    let paths = ["t/a", "t/b", "t/c/d", "t/e", "t/f"];
    for path in paths {
        rig.store.replace(path, b"x").unwrap();
    }
    rig.store.replace("tt", b"x").unwrap();
    let found = |entries: Vec<headwater_lake::store::Entry>| {
        entries
            .into_iter()
            .map(|entry| entry.path)
            .collect::<Vec<_>>()
    };
    assert_eq!(found(rig.store.list("t").unwrap()), paths);
    assert_eq!(found(rig.store.list("").unwrap()).len(), 6);
    rig.log();
    rig.store.replace("t/", b"").unwrap();
    rig.log();
    assert_eq!(
        found(rig.store.list_some("t", 1).unwrap()),
        ["t/a"],
        "a folder is no object"
    );
    assert_eq!(rig.log(), ["list"]);
    assert!(rig.store.list("no").unwrap().is_empty());
}

/// Bytes that differ everywhere.
fn long(len: usize) -> Vec<u8> {
    let byte = |at: usize| u8::try_from((at * 31 + at / 251) % 256).unwrap();
    (0..len).map(byte).collect()
}

#[test]
fn an_object_is_read_by_parts_from_its_end() {
    let rig = Rig::new();
    let bytes = long(3 << 20);
    rig.store.replace(PATH, &bytes).unwrap();
    rig.log();
    let object = rig.store.open(PATH).unwrap();
    assert_eq!(object.size(), bytes.len() as u64);
    let read = |offset: usize, len: usize| {
        let got = object.read_at(offset as u64, len).unwrap();
        assert!(
            got[..] == bytes[offset..offset + len],
            "{len} from {offset}"
        );
    };
    read(bytes.len() - 8, 8);
    read(bytes.len() - 1_000, 500);
    assert_eq!(rig.log(), ["get"]);
    for offset in (0..1 << 20).step_by(64 << 10) {
        read(offset, 64 << 10);
    }
    assert_eq!(rig.log(), ["get"]);
    read(1 << 20, 2 << 20);
    read(5, 2 << 20);
    assert!(object.read_at(bytes.len() as u64 - 1, 2).is_err());
    // An object that is no longer the one that was opened is not read on.
    rig.store.replace(PATH, &long(4 << 20)).unwrap();
    assert!(object.read_at(5 << 19, 10).is_err());
}

#[test]
fn a_large_file_goes_up_in_parts_once() {
    let rig = Rig::new();
    let bytes = long((33 << 20) + 5);
    rig.store.stage("s/f", &bytes).unwrap();
    rig.log();
    assert_eq!(rig.store.publish("s/f", PATH).unwrap(), Put::Created);
    let log = rig.log();
    assert_eq!(log.first().map(String::as_str), Some("begin"));
    assert_eq!(log.iter().filter(|it| *it == "part").count(), 5);
    assert!(rig.object(PATH).unwrap() == bytes);
    assert_eq!(rig.store.sha256(PATH).unwrap(), Sha256::of(&bytes));
    // Once more: nothing is replaced, and the upload is given up.
    assert_eq!(rig.store.publish("s/f", PATH).unwrap(), Put::Exists);
    assert_eq!(rig.log().last().unwrap(), "abort");
    assert!(lock(&rig.service).uploads.is_empty());
}

#[test]
fn an_upload_that_fails_begins_anew_unless_it_is_there() {
    let rig = Rig::new();
    let bytes = long(17 << 20);
    rig.store.stage("s/f", &bytes).unwrap();
    for (path, fault, put) in [
        (
            "a",
            Fault::Code(409, "ConditionalRequestConflict"),
            Put::Created,
        ),
        ("b", Fault::ErrorInBody, Put::Exists),
        ("c", Fault::Silent, Put::Exists),
    ] {
        rig.fail("complete", std::slice::from_ref(&fault));
        assert_eq!(rig.store.publish("s/f", path).unwrap(), put, "{fault:?}");
        assert!(rig.object(path).unwrap() == bytes);
        assert!(rig.log().contains(&"abort".to_owned()));
    }
    rig.fail("part", &[Fault::Code(403, "ExpiredToken")]);
    assert!(rig.store.publish("s/f", "d").is_err());
    assert_eq!(rig.log(), ["begin", "part", "abort"]);
    assert!(lock(&rig.service).uploads.is_empty());
}

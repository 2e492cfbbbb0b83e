//! A lake in a bucket of S3: the objects of [`Store`] as requests.
//!
//! | operation | request | a request whose answer was lost |
//! |---|---|---|
//! | create | PUT with If-None-Match | the next one says that the object is there; its hash tells whose it is |
//! | replace if unchanged | PUT with If-Match | the next one says that it changed; who replaces reads it |
//! | publish up to 16 MiB | PUT with If-None-Match, and the SHA-256 as metadata | as for create |
//! | publish above | parts, then a completion with If-None-Match; given up as a whole | as for create |
//! | size, SHA-256 | GET of one byte: the error of a HEAD has no body that tells a missing bucket from a missing object | |
//!
//! Staged files are on this machine. Requests that may have failed on the way are repeated a few times here, for a
//! start makes hundreds; all else is left to the sink's worker, which repeats the whole step.

mod attempt;
mod body;
mod object;
mod upload;

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use aws_config::SdkConfig;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::Config;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ServerSideEncryption, StorageClass};
use bytes::Bytes;
use headwater_lake::store::{Entry, ReadAt};
use headwater_lake::{Aside, LocalStore, Put, Sha256, Store, StoreError, Swap, Tag, Tagged};
use headwater_program::chain::chain;

use self::attempt::{Attempts, Counts, Failed, Kind};
use crate::access::Access;
use crate::bucket::Bucket;
use crate::set_up::{Late, Made, endpoint_of, runtime, timeouts};
use crate::trouble::Trouble;

/// Under this name an object bears its SHA-256.
const SHA256: &str = "sha256";

/// An object that no reader needs: whether it can be created twice tells of the service.
const PROBE_PATH: &str = "_headwater/conditions";

/// Objects of one list: what S3 gives at most.
const PAGE: i32 = 1_000;

/// The objects of a lake in a bucket. Nothing is asked of the service yet.
///
/// # Errors
/// [`StoreError`] of the stage.
pub fn open(bucket: &Bucket) -> Result<Arc<dyn Store>, StoreError> {
    Ok(Arc::new(S3Store::new(bucket.clone())?))
}

impl Made for Client {
    const SERVICES: &[&str] = &["S3"];

    fn made(config: &SdkConfig, access: &Access) -> Self {
        let mut builder = aws_sdk_s3::config::Builder::from(config);
        if access.endpoint.is_some() || endpoint_of(config, Self::SERVICES).is_some() {
            // Whatever speaks S3 at an address of its own has no name for each bucket.
            builder.set_force_path_style(Some(true));
        }
        Self::from_conf(builder.build())
    }
}

/// The objects of a lake below a prefix of a bucket.
struct S3Store {
    shared: Arc<Shared>,
    /// Folder of staged files; `None` for a reader.
    stage: Option<LocalStore>,
}

/// What requests need.
struct Shared {
    bucket: Bucket,
    client: Late<Client>,
    counts: Counts,
}

/// A request's way to the service.
struct Line {
    client: Client,
    bucket: String,
    key: String,
}

/// What is asked of an object that is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Condition {
    Absent,
    Is(Tag),
    Any,
}

impl Condition {
    fn none_match(&self) -> Option<String> {
        (*self == Self::Absent).then(|| "*".to_owned())
    }

    fn matches(&self) -> Option<String> {
        match self {
            Self::Is(tag) => Some(tag.as_str().to_owned()),
            Self::Absent | Self::Any => None,
        }
    }
}

impl Shared {
    fn key(&self, path: &str) -> String {
        format!("{}{path}", self.bucket.prefix)
    }

    /// Makes a request, again if it may have failed on the way.
    fn request<T, F>(
        &self,
        request: (Kind, &'static str, &str),
        call: impl Fn(Line) -> F,
    ) -> Result<T, Failed>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Trouble>> + Send + 'static,
    {
        let mut attempts = Attempts::begin();
        loop {
            match self.once(request, &call) {
                Err(failed) if attempts.wait(&failed) => {}
                ended => return ended,
            }
        }
    }

    /// Makes a request once.
    fn once<T, F>(
        &self,
        (kind, action, path): (Kind, &'static str, &str),
        call: &impl Fn(Line) -> F,
    ) -> Result<T, Failed>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Trouble>> + Send + 'static,
    {
        let failed = match self.ask(kind, path, call) {
            Ok(answer) => return Ok(answer),
            Err(trouble) => Failed::of(trouble, action, path),
        };
        self.counts.failed(&failed);
        if failed.is_denied() {
            // The next request begins with new credentials.
            let late = self.client.clone();
            // Where the runtime is gone there is none.
            let _ = wait(async move { late.forget().await });
        }
        Err(failed)
    }

    fn ask<T, F>(&self, kind: Kind, path: &str, call: &impl Fn(Line) -> F) -> Result<T, Trouble>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Trouble>> + Send + 'static,
    {
        let access = self.bucket.access.clone();
        let late = self.client.clone();
        let client = wait(async move { late.get(&access).await })??;
        let line = Line {
            client,
            bucket: self.bucket.name.clone(),
            key: self.key(path),
        };
        self.counts.count(kind);
        wait(call(line))?
    }

    fn put(
        &self,
        action: &'static str,
        path: &str,
        bytes: Bytes,
        (condition, sha256, class): (Condition, Option<Sha256>, Option<StorageClass>),
    ) -> Result<Tag, Failed> {
        let kms_key = self.bucket.kms_key.clone();
        self.request((Kind::Put, action, path), |line| {
            let (bytes, kms_key, class) = (bytes.clone(), kms_key.clone(), class.clone());
            let condition = condition.clone();
            let within = within(bytes.len());
            async move {
                let put = line.client.put_object().bucket(line.bucket).key(line.key);
                let put = put
                    .set_if_none_match(condition.none_match())
                    .set_if_match(condition.matches())
                    .set_storage_class(class)
                    .set_server_side_encryption(
                        kms_key.is_some().then_some(ServerSideEncryption::AwsKms),
                    )
                    .set_ssekms_key_id(kms_key)
                    .set_metadata(sha256.map(|hash| [(SHA256.to_owned(), hash.to_string())].into()))
                    .body(ByteStream::from(bytes));
                let sent = put.customize().config_override(within).send().await;
                let put = sent.map_err(|error| Trouble::of(&error))?;
                tag(put.e_tag())
            }
        })
    }

    /// The object's size and its SHA-256, if it bears that. `None` if there is no object.
    fn look(&self, path: &str) -> Result<Option<(u64, Option<Sha256>)>, StoreError> {
        let looked = self.request((Kind::Get, "look at", path), |line| async move {
            let get = line.client.get_object().bucket(line.bucket).key(line.key);
            let get = get.range("bytes=0-0").customize();
            let sent = get.config_override(within(1)).send().await;
            let got = sent.map_err(|error| Trouble::of(&error))?;
            let hash = got.metadata().and_then(|pairs| pairs.get(SHA256));
            let hash = hash.and_then(|text| text.parse().ok());
            body::whole_size(&got).map(|size| (size, hash))
        });
        match looked {
            Ok(found) => Ok(Some(found)),
            Err(Failed::Missing { .. }) => Ok(None),
            // There is no first byte.
            Err(Failed::NoRange { .. }) => Ok(Some((0, None))),
            Err(error) => Err(error.into()),
        }
    }
}

impl S3Store {
    fn new(bucket: Bucket) -> Result<Self, StoreError> {
        let stage = bucket.stage.as_deref().map(LocalStore::new).transpose()?;
        let shared = Shared {
            bucket,
            client: Late::default(),
            counts: Counts::default(),
        };
        Ok(Self {
            shared: Arc::new(shared),
            stage,
        })
    }

    fn local(&self) -> Result<&LocalStore, StoreError> {
        self.stage.as_ref().ok_or_else(|| StoreError::Denied {
            action: "stage files for",
            path: self.shared.bucket.to_string(),
            cause: "this command has no folder for that".to_owned(),
            remedy: "files are published by the collector alone".to_owned(),
        })
    }

    /// One page of a list, and where the next begins.
    fn page(
        &self,
        prefix: &str,
        most: i32,
        from: Option<&String>,
    ) -> Result<(Vec<Entry>, Option<String>), StoreError> {
        let root = self.shared.bucket.prefix.len();
        let below = match prefix {
            "" => String::new(),
            folder => format!("{folder}/"),
        };
        let listed = self.shared.request((Kind::List, "list", &below), |line| {
            let from = from.cloned();
            async move {
                let list = line.client.list_objects_v2().bucket(line.bucket);
                let list = list
                    .prefix(line.key)
                    .max_keys(most)
                    .set_continuation_token(from);
                let sent = list.customize().config_override(within(0)).send().await;
                let listed = sent.map_err(|error| Trouble::of(&error))?;
                let next = listed.next_continuation_token().map(str::to_owned);
                let entries = listed.contents().iter().filter_map(|object| {
                    // Some programs make an empty object for each folder.
                    object.key().filter(|key| !key.ends_with('/'))?;
                    Some(Entry {
                        path: object.key()?.get(root..)?.to_owned(),
                        bytes: u64::try_from(object.size()?).ok()?,
                    })
                });
                Ok((entries.collect(), next))
            }
        });
        Ok(listed?)
    }
}

/// Runs a request on the runtime of AWS, and waits for it on this thread, which is none of that runtime's.
fn wait<T: Send + 'static>(
    request: impl Future<Output = T> + Send + 'static,
) -> Result<T, Trouble> {
    let unknown = |cause: String| Trouble::Unknown { cause };
    let runtime = runtime().map_err(|error| unknown(format!("{error:#}")))?;
    let (tell, told) = sync_channel(1);
    runtime.spawn(async move {
        // Whoever asked waits.
        let _ = tell.send(request.await);
    });
    told.recv()
        .map_err(|error| unknown(format!("the request ended early: {}", chain(&error))))
}

/// How long a request may take that moves so many bytes.
fn within(bytes: usize) -> aws_sdk_s3::config::Builder {
    let timeouts: TimeoutConfig = timeouts(bytes);
    Config::builder().timeout_config(timeouts)
}

/// Names an object's content.
fn tag(e_tag: Option<&str>) -> Result<Tag, Trouble> {
    let tag = e_tag.map(Tag::of_service);
    tag.ok_or_else(|| Trouble::Unknown {
        cause: "the answer has no ETag".to_owned(),
    })
}

impl Store for S3Store {
    fn put_if_absent(&self, path: &str, bytes: &[u8]) -> Result<Put, StoreError> {
        let bytes = Bytes::copy_from_slice(bytes);
        match self
            .shared
            .put("create", path, bytes, (Condition::Absent, None, None))
        {
            Ok(_) => Ok(Put::Created),
            Err(Failed::Changed { .. }) => Ok(Put::Exists),
            Err(error) => Err(error.into()),
        }
    }

    fn swap(&self, path: &str, expected: Option<&Tag>, bytes: &[u8]) -> Result<Swap, StoreError> {
        let condition = expected.map_or(Condition::Absent, |tag| Condition::Is(tag.clone()));
        let bytes = Bytes::copy_from_slice(bytes);
        match self
            .shared
            .put("replace", path, bytes, (condition, None, None))
        {
            Ok(tag) => Ok(Swap::Done(tag)),
            Err(Failed::Changed { .. } | Failed::Missing { .. }) => Ok(Swap::Changed),
            Err(error) => Err(error.into()),
        }
    }

    fn replace(&self, path: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let bytes = Bytes::copy_from_slice(bytes);
        self.shared
            .put("replace", path, bytes, (Condition::Any, None, None))?;
        Ok(())
    }

    fn get(&self, path: &str) -> Result<Bytes, StoreError> {
        let got = self.shared.request((Kind::Get, "read", path), body::whole);
        Ok(got?.1)
    }

    fn get_tagged(&self, path: &str) -> Result<Option<Tagged>, StoreError> {
        match self.shared.request((Kind::Get, "read", path), body::whole) {
            Ok((tag, bytes)) => Ok(Some(Tagged { bytes, tag })),
            Err(Failed::Missing { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn sha256(&self, path: &str) -> Result<Sha256, StoreError> {
        match self.shared.look(path)? {
            Some((_, Some(hash))) => Ok(hash),
            // Something else put it there.
            Some((_, None)) => Ok(Sha256::of(&self.get(path)?)),
            None => Err(StoreError::Missing {
                path: path.to_owned(),
            }),
        }
    }

    fn open(&self, path: &str) -> Result<Arc<dyn ReadAt>, StoreError> {
        object::open(&self.shared, path)
    }

    fn size(&self, path: &str) -> Result<Option<u64>, StoreError> {
        Ok(self.shared.look(path)?.map(|(size, _)| size))
    }

    fn list(&self, prefix: &str) -> Result<Vec<Entry>, StoreError> {
        self.list_some(prefix, usize::MAX)
    }

    fn list_some(&self, prefix: &str, most: usize) -> Result<Vec<Entry>, StoreError> {
        // One more: the first may be a folder's.
        let size = i32::try_from(most.saturating_add(1)).map_or(PAGE, |most| most.min(PAGE));
        let (mut found, mut from) = (Vec::new(), None);
        while found.len() < most {
            let (page, next) = self.page(prefix, size, from.as_ref())?;
            found.extend(page);
            if next.is_none() {
                break;
            }
            from = next;
        }
        found.truncate(most);
        found.sort_by(|a: &Entry, b| a.path.cmp(&b.path));
        Ok(found)
    }

    /// S3 has no move: the object is written under its other name, and removed then.
    fn set_aside(&self, path: &str, to: &str) -> Result<Aside, StoreError> {
        let bytes = self.get(path)?;
        let hash = Sha256::of(&bytes);
        let how = (Condition::Absent, Some(hash), None);
        match self.shared.put("set aside", to, bytes, how) {
            Ok(_) => {}
            // By ourselves, where an answer was lost or a start was cut off.
            Err(Failed::Changed { .. }) if self.sha256(to)? == hash => {}
            Err(Failed::Changed { .. }) => return Ok(Aside::Taken),
            Err(error) => return Err(error.into()),
        }
        self.delete(path)?;
        Ok(Aside::Moved)
    }

    fn delete(&self, path: &str) -> Result<(), StoreError> {
        let deleted = self
            .shared
            .request((Kind::Delete, "delete", path), |line| async move {
                let delete = line.client.delete_object().bucket(line.bucket);
                let delete = delete.key(line.key).customize();
                let sent = delete.config_override(within(0)).send().await;
                sent.map(drop).map_err(|error| Trouble::of(&error))
            });
        match deleted {
            Ok(()) | Err(Failed::Missing { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn stage(&self, path: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.local()?.stage(path, bytes)
    }

    fn sync_stage(&self, paths: &[&str]) -> Result<(), StoreError> {
        self.local()?.sync_stage(paths)
    }

    fn staged(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        self.stage
            .as_ref()
            .map_or(Ok(Vec::new()), |stage| stage.staged(prefix))
    }

    fn unstage(&self, path: &str) -> Result<(), StoreError> {
        self.stage
            .as_ref()
            .map_or(Ok(()), |stage| stage.unstage(path))
    }

    fn prove(&self) -> Result<(), StoreError> {
        let content = b"headwater";
        let knows_absent = self.put_if_absent(PROBE_PATH, content)? == Put::Exists
            || self.put_if_absent(PROBE_PATH, content)? == Put::Exists;
        // No object bears this tag.
        let wrong = Tag::of_service("\"00000000000000000000000000000000\"");
        if knows_absent && self.swap(PROBE_PATH, Some(&wrong), content)? == Swap::Changed {
            return Ok(());
        }
        Err(StoreError::Denied {
            action: "write to",
            path: self.shared.bucket.to_string(),
            cause: "the service replaces an object although If-None-Match or If-Match forbids it, so that two writers would \
                    destroy each other's work"
                .to_owned(),
            remedy: "use a service that knows conditional writes, as S3 itself does".to_owned(),
        })
    }

    fn tidy(&self) -> Result<(), StoreError> {
        if let Some(stage) = &self.stage {
            stage.tidy()?;
        }
        upload::give_up_old(&self.shared);
        Ok(())
    }

    fn publish(&self, from: &str, to: &str) -> Result<Put, StoreError> {
        let staged = self.local()?.open(from)?;
        upload::publish(&self.shared, &*staged, from, to)
    }

    fn requests(&self) -> Vec<(&'static str, u64)> {
        self.shared.counts.all()
    }
}

/// A staged file that cannot be read.
fn unread(path: &str) -> impl Fn(io::Error) -> StoreError + '_ {
    move |source| StoreError::Io {
        action: "read",
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests;

//! Staged files on their way into the bucket.

use std::time::{Duration, SystemTime};

use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{
    CompletedMultipartUpload, CompletedPart, ServerSideEncryption, StorageClass,
};
use headwater_lake::store::ReadAt;
use headwater_lake::{Put, Sha256, StoreError, Table};
use sha2::Digest as _;

use super::attempt::{Attempts, Failed, Kind};
use super::{Condition, SHA256, Shared, Trouble, unread, within};

/// Largest file that goes up in one request.
const ONE_BYTES: usize = 16 << 20;

/// Size of a larger one's parts.
const PART_BYTES: usize = 8 << 20;

/// Age from which an upload in parts is no living collector's.
const OLD: Duration = Duration::from_secs(24 * 3_600);

/// Gives the staged bytes the name `to`, unless something bears it.
pub(super) fn publish(
    shared: &Shared,
    staged: &dyn ReadAt,
    from: &str,
    to: &str,
) -> Result<Put, StoreError> {
    let class = shared
        .bucket
        .storage_class
        .as_deref()
        .map(StorageClass::from);
    let size = usize::try_from(staged.size()).unwrap_or(usize::MAX);
    let put = if size <= ONE_BYTES {
        let bytes = staged.read_at(0, size).map_err(unread(from))?;
        let how = (Condition::Absent, Some(Sha256::of(&bytes)), class);
        shared.put("publish", to, bytes, how).map(drop)
    } else {
        let sha256 = hash(staged).map_err(unread(from))?;
        in_parts(shared, staged, (from, to), (sha256, class))?
    };
    match put {
        Ok(()) => Ok(Put::Created),
        Err(Failed::Changed { .. }) => Ok(Put::Exists),
        Err(error) => Err(error.into()),
    }
}

fn hash(staged: &dyn ReadAt) -> std::io::Result<Sha256> {
    let (mut hash, mut at) = (sha2::Sha256::new(), 0);
    while at < staged.size() {
        let bytes = staged.read_at(at, part_of(staged, at))?;
        hash.update(&bytes);
        at += bytes.len() as u64;
    }
    Ok(Sha256(hash.finalize().into()))
}

/// Bytes of the part that begins at `at`.
fn part_of(staged: &dyn ReadAt, at: u64) -> usize {
    let left = staged.size().saturating_sub(at);
    usize::try_from(left).unwrap_or(usize::MAX).min(PART_BYTES)
}

/// A conflict, or an answer that was lost, leaves nothing of an upload to go on with: it begins anew, unless the
/// object is there by then.
fn in_parts(
    shared: &Shared,
    staged: &dyn ReadAt,
    (from, to): (&str, &str),
    how: (Sha256, Option<StorageClass>),
) -> Result<Result<(), Failed>, StoreError> {
    let mut attempts = Attempts::begin();
    loop {
        if attempts.has_failed() && shared.look(to)?.is_some() {
            return Ok(Err(Failed::Changed {
                path: to.to_owned(),
            }));
        }
        let upload = match begin(shared, to, how.clone()) {
            Ok(upload) => upload,
            Err(error) => return Ok(Err(error)),
        };
        let sent = send_parts(shared, staged, (from, to), &upload)?;
        let done = sent.and_then(|parts| complete(shared, to, &upload, &parts));
        let Err(error) = done else {
            return Ok(Ok(()));
        };
        give_up(shared, to, &upload);
        if !attempts.wait(&error) {
            return Ok(Err(error));
        }
    }
}

fn begin(
    shared: &Shared,
    to: &str,
    (sha256, class): (Sha256, Option<StorageClass>),
) -> Result<String, Failed> {
    let kms_key = shared.bucket.kms_key.clone();
    shared.request((Kind::Put, "publish", to), |line| {
        let (class, kms_key) = (class.clone(), kms_key.clone());
        async move {
            let begin = line.client.create_multipart_upload().bucket(line.bucket);
            let begin = begin
                .key(line.key)
                .metadata(SHA256, sha256.to_string())
                .set_storage_class(class)
                .set_server_side_encryption(
                    kms_key.is_some().then_some(ServerSideEncryption::AwsKms),
                )
                .set_ssekms_key_id(kms_key);
            let sent = begin.customize().config_override(within(0)).send().await;
            let begun = sent.map_err(|error| Trouble::of(&error))?;
            begun.upload_id.ok_or_else(|| Trouble::Unknown {
                cause: "the answer names no upload".to_owned(),
            })
        }
    })
}

fn send_parts(
    shared: &Shared,
    staged: &dyn ReadAt,
    (from, to): (&str, &str),
    upload: &str,
) -> Result<Result<Vec<CompletedPart>, Failed>, StoreError> {
    let (mut parts, mut at) = (Vec::new(), 0);
    for number in 1.. {
        if at == staged.size() {
            break;
        }
        let bytes = staged
            .read_at(at, part_of(staged, at))
            .map_err(unread(from))?;
        at += bytes.len() as u64;
        let sent = shared.request((Kind::Put, "publish", to), |line| {
            let (bytes, upload) = (bytes.clone(), upload.to_owned());
            async move {
                let within = within(bytes.len());
                let send = line.client.upload_part().bucket(line.bucket).key(line.key);
                let send = send
                    .upload_id(upload)
                    .part_number(number)
                    .body(ByteStream::from(bytes));
                let sent = send.customize().config_override(within).send().await;
                let sent = sent.map_err(|error| Trouble::of(&error))?;
                Ok(CompletedPart::builder()
                    .part_number(number)
                    .set_e_tag(sent.e_tag)
                    .set_checksum_crc32(sent.checksum_crc32)
                    .build())
            }
        });
        match sent {
            Ok(part) => parts.push(part),
            Err(error) => return Ok(Err(error)),
        }
    }
    Ok(Ok(parts))
}

/// Not repeated by itself: after a conflict the upload is gone.
fn complete(
    shared: &Shared,
    to: &str,
    upload: &str,
    parts: &[CompletedPart],
) -> Result<(), Failed> {
    shared.once((Kind::Put, "publish", to), &|line| {
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts.to_vec()));
        let upload = upload.to_owned();
        async move {
            let complete = line.client.complete_multipart_upload().bucket(line.bucket);
            let complete = complete
                .key(line.key)
                .upload_id(upload)
                .multipart_upload(parts.build())
                .if_none_match("*");
            // S3 puts the parts together before it answers.
            let sent = complete.customize().config_override(within(8 << 20));
            let sent = sent.send().await;
            sent.map(drop).map_err(|error| Trouble::of(&error))
        }
    })
}

/// Whether a file of a lake's table is called so: others may use the bucket too.
fn is_data(path: &str) -> bool {
    let mut tables = Table::ALL.into_iter();
    tables.any(|table| path.starts_with(&format!("{}/hot/dt=", table.name())))
}

/// What cannot be given up is billed until it is a day old.
fn give_up(shared: &Shared, to: &str, upload: &str) {
    let given_up = shared.once((Kind::Delete, "give up", to), &|line| {
        let upload = upload.to_owned();
        async move {
            let abort = line.client.abort_multipart_upload().bucket(line.bucket);
            let abort = abort.key(line.key).upload_id(upload).customize();
            let sent = abort.config_override(within(0)).send().await;
            sent.map(drop).map_err(|error| Trouble::of(&error))
        }
    });
    if let Err(failed) = given_up {
        tracing::debug!(?failed, to, "an upload in parts could not be given up");
    }
}

/// Gives up uploads of data files in parts that no living collector works on. Not every service can list them; S3's
/// own rule `AbortIncompleteMultipartUpload` does the same.
pub(super) fn give_up_old(shared: &Shared) {
    let listed = shared.once((Kind::List, "list uploads of", ""), &|line| async move {
        let list = line.client.list_multipart_uploads().bucket(line.bucket);
        let list = list.prefix(line.key).customize();
        let sent = list.config_override(within(0)).send().await;
        let listed = sent.map_err(|error| Trouble::of(&error))?;
        let uploads = listed.uploads.unwrap_or_default().into_iter();
        Ok(uploads
            .filter_map(|upload| {
                let begun = SystemTime::try_from(upload.initiated?).ok()?;
                Some((upload.key?, upload.upload_id?, begun))
            })
            .collect::<Vec<_>>())
    });
    let uploads = match listed {
        Ok(uploads) => uploads,
        Err(failed) => {
            tracing::info!(
                ?failed,
                "uploads in parts that a crash may have left cannot be listed"
            );
            return;
        }
    };
    for (key, upload, begun) in uploads {
        let is_old = begun.elapsed().is_ok_and(|age| age > OLD);
        let path = key.strip_prefix(&shared.bucket.prefix).filter(|_| is_old);
        if let Some(path) = path.filter(|path| is_data(path)) {
            tracing::warn!(path, "an upload in parts that a crash left is given up");
            give_up(shared, path, &upload);
        }
    }
}

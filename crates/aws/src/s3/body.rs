//! The bytes of an answer.

use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::primitives::ByteStream;
use bytes::{Bytes, BytesMut};
use headwater_lake::Tag;
use headwater_program::chain::chain;
use tokio::time::timeout;

use crate::set_up::ANSWER;

use super::{Line, Trouble, tag, within};

/// Memory that is set aside before bytes come.
const FIRST_BYTES: usize = 1 << 20;

/// The whole object.
pub(super) async fn whole(line: Line) -> Result<(Tag, Bytes), Trouble> {
    let get = line.client.get_object().bucket(line.bucket).key(line.key);
    let sent = get.customize().config_override(within(0)).send().await;
    let got = sent.map_err(|error| Trouble::of(&error))?;
    let (tag, size) = (tag(got.e_tag())?, size_of(&got)?);
    Ok((tag, read(got.body, size).await?))
}

/// Some bytes of an object, its tag and its whole size.
///
/// - `range`: as HTTP writes it.
/// - `expected`: what the object must still be.
pub(super) async fn part(
    line: Line,
    range: String,
    expected: Option<Tag>,
) -> Result<(Tag, u64, Bytes), Trouble> {
    // Of the last bytes of an object nobody knows the first.
    let from = range.trim_start_matches("bytes=").split('-').next();
    let wanted = from.filter(|from| !from.is_empty());
    let wanted = wanted.map_or_else(|| "bytes ".to_owned(), |from| format!("bytes {from}-"));
    let get = line.client.get_object().bucket(line.bucket).key(line.key);
    let get = get
        .range(range)
        .set_if_match(expected.map(|tag| tag.as_str().to_owned()));
    let sent = get.customize().config_override(within(0)).send().await;
    let got = sent.map_err(|error| Trouble::of(&error))?;
    let (tag, whole, size) = (tag(got.e_tag())?, whole_size(&got)?, size_of(&got)?);
    if size as u64 != whole
        && got
            .content_range()
            .is_none_or(|told| !told.starts_with(&wanted))
    {
        return Err(unread("it is of other bytes than were asked for"));
    }
    Ok((tag, whole, read(got.body, size).await?))
}

/// Size of the whole object, of whose bytes some are given.
pub(super) fn whole_size(got: &GetObjectOutput) -> Result<u64, Trouble> {
    let range = got
        .content_range()
        .and_then(|range| range.rsplit('/').next());
    match range.map(str::parse) {
        Some(Ok(size)) => Ok(size),
        // All of it was given.
        None => Ok(size_of(got)? as u64),
        Some(Err(_)) => Err(unread("its Content-Range")),
    }
}

fn size_of(got: &GetObjectOutput) -> Result<usize, Trouble> {
    let size = got
        .content_length()
        .and_then(|size| usize::try_from(size).ok());
    size.ok_or_else(|| unread("its Content-Length"))
}

fn unread(what: &str) -> Trouble {
    Trouble::Unknown {
        cause: format!("the answer cannot be read: {what}"),
    }
}

async fn read(mut body: ByteStream, size: usize) -> Result<Bytes, Trouble> {
    let mut bytes = BytesMut::with_capacity(size.min(FIRST_BYTES));
    // A slow link is no fault, one that stands still is.
    while let Some(chunk) = timeout(ANSWER, body.next())
        .await
        .map_err(|_| Trouble::Unknown {
            cause: format!("no byte came for {} s", ANSWER.as_secs()),
        })?
    {
        let chunk = chunk.map_err(|error| Trouble::Unknown {
            cause: chain(&error),
        })?;
        if bytes.len() + chunk.len() > size {
            return Err(unread("it is longer than it says"));
        }
        bytes.extend_from_slice(&chunk);
    }
    if bytes.len() < size {
        return Err(unread("it ends early"));
    }
    Ok(bytes.freeze())
}

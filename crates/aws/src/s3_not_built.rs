//! The place of S3 in a build without the AWS SDK.

use std::sync::Arc;

use headwater_lake::{Store, StoreError};

use crate::NOT_BUILT;
use crate::bucket::Bucket;

/// The objects of a lake in a bucket, which this build cannot reach.
///
/// # Errors
/// [`StoreError::Denied`].
pub fn open(bucket: &Bucket) -> Result<Arc<dyn Store>, StoreError> {
    Err(StoreError::Denied {
        action: "use",
        path: bucket.to_string(),
        cause: "this build has no S3".to_owned(),
        remedy: NOT_BUILT.to_owned(),
    })
}

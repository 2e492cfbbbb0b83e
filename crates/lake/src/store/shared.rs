//! A store that several share, of whatever kind.

use std::sync::Arc;

use bytes::Bytes;

use super::{Aside, Entry, Put, ReadAt, Store, StoreError, Swap, Tag, Tagged};
use crate::plan::Sha256;

impl<S: Store + ?Sized> Store for Arc<S> {
    fn put_if_absent(&self, path: &str, bytes: &[u8]) -> Result<Put, StoreError> {
        (**self).put_if_absent(path, bytes)
    }

    fn swap(&self, path: &str, expected: Option<&Tag>, bytes: &[u8]) -> Result<Swap, StoreError> {
        (**self).swap(path, expected, bytes)
    }

    fn replace(&self, path: &str, bytes: &[u8]) -> Result<(), StoreError> {
        (**self).replace(path, bytes)
    }

    fn get(&self, path: &str) -> Result<Bytes, StoreError> {
        (**self).get(path)
    }

    fn find(&self, path: &str) -> Result<Option<Bytes>, StoreError> {
        (**self).find(path)
    }

    fn get_tagged(&self, path: &str) -> Result<Option<Tagged>, StoreError> {
        (**self).get_tagged(path)
    }

    fn sha256(&self, path: &str) -> Result<Sha256, StoreError> {
        (**self).sha256(path)
    }

    fn open(&self, path: &str) -> Result<Arc<dyn ReadAt>, StoreError> {
        (**self).open(path)
    }

    fn size(&self, path: &str) -> Result<Option<u64>, StoreError> {
        (**self).size(path)
    }

    fn list(&self, prefix: &str) -> Result<Vec<Entry>, StoreError> {
        (**self).list(prefix)
    }

    fn list_some(&self, prefix: &str, most: usize) -> Result<Vec<Entry>, StoreError> {
        (**self).list_some(prefix, most)
    }

    fn set_aside(&self, path: &str, to: &str) -> Result<Aside, StoreError> {
        (**self).set_aside(path, to)
    }

    fn delete(&self, path: &str) -> Result<(), StoreError> {
        (**self).delete(path)
    }

    fn stage(&self, path: &str, bytes: &[u8]) -> Result<(), StoreError> {
        (**self).stage(path, bytes)
    }

    fn sync_stage(&self, paths: &[&str]) -> Result<(), StoreError> {
        (**self).sync_stage(paths)
    }

    fn staged(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        (**self).staged(prefix)
    }

    fn unstage(&self, path: &str) -> Result<(), StoreError> {
        (**self).unstage(path)
    }

    fn prove(&self) -> Result<(), StoreError> {
        (**self).prove()
    }

    fn tidy(&self) -> Result<(), StoreError> {
        (**self).tidy()
    }

    fn publish(&self, from: &str, to: &str) -> Result<Put, StoreError> {
        (**self).publish(from, to)
    }

    fn requests(&self) -> Vec<(&'static str, u64)> {
        (**self).requests()
    }
}

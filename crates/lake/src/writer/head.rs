//! Core: replaces the head of the lake after each commit.

use crate::error::LakeError;
use crate::head::{Head, NoHead};
use crate::paths::HEAD_PATH;
use crate::store::{Store, Swap, Tag};

use super::{SWAP_ATTEMPTS, restless};

/// The head that was read or written last.
#[derive(Debug)]
pub(super) struct HeadKeeper {
    head: Option<Head>,
    tag: Option<Tag>,
}

impl HeadKeeper {
    /// Reads the head; a damaged one counts as none, and is replaced.
    ///
    /// # Errors
    /// [`LakeError::NewerHead`], [`LakeError::Store`].
    pub(super) fn read(store: &dyn Store) -> Result<Self, LakeError> {
        let Some(found) = store.get_tagged(HEAD_PATH)? else {
            return Ok(Self {
                head: None,
                tag: None,
            });
        };
        let head = match Head::decode(&found.bytes) {
            Ok(head) => Some(head),
            Err(NoHead::Damaged) => None,
            Err(NoHead::Newer(version)) => return Err(LakeError::NewerHead(version)),
        };
        Ok(Self {
            head,
            tag: Some(found.tag),
        })
    }

    pub(super) const fn head(&self) -> Option<&Head> {
        self.head.as_ref()
    }

    /// Writes the head, unless it says so already.
    ///
    /// # Errors
    /// [`LakeError::Fenced`] if a later owner has written it; otherwise to be tried again.
    pub(super) fn write(&mut self, store: &dyn Store, head: Head) -> Result<(), LakeError> {
        if self.head.as_ref() == Some(&head) {
            return Ok(());
        }
        let bytes = head.encode();
        for _ in 0..SWAP_ATTEMPTS {
            if let Swap::Done(tag) = store.swap(HEAD_PATH, self.tag.as_ref(), &bytes)? {
                (self.head, self.tag) = (Some(head), Some(tag));
                return Ok(());
            }
            // A write of ours whose answer was lost, or an earlier owner's last.
            let found = store.get_tagged(HEAD_PATH)?;
            let present = found.as_ref().map(|found| Head::decode(&found.bytes));
            if let Some(Ok(later)) =
                present.filter(|p| p.as_ref().is_ok_and(|h| h.term > head.term))
            {
                return Err(LakeError::Fenced {
                    term: later.term,
                    owner: Some(later.owner),
                });
            }
            self.tag = found.map(|found| found.tag);
        }
        Err(restless(HEAD_PATH))
    }
}

//! Core: the newest versions of a log in memory, as far as they are few.

use super::version::Actions;

/// Files of the versions since the last checkpoint that are kept in memory at most: about 8 MiB in
/// a table. A log with more reads those versions again when it needs them.
pub(super) const MAX_TAIL_FILES: usize = 16_384;

/// The actions of the newest versions.
#[derive(Debug, Clone, Default)]
pub(super) struct Tail {
    /// First version that is kept.
    from: u64,
    versions: Vec<Actions>,
    /// Files that they name.
    files: usize,
    /// There were more than [`MAX_TAIL_FILES`]: nothing is kept until the next checkpoint.
    is_over: bool,
}

impl Tail {
    pub(super) fn begin(from: u64) -> Self {
        Self {
            from,
            ..Self::default()
        }
    }

    pub(super) fn push(&mut self, actions: &Actions) {
        self.files += actions.adds.len() + actions.removes.len();
        if self.files > MAX_TAIL_FILES {
            self.is_over = true;
            self.versions = Vec::new();
        }
        if !self.is_over {
            self.versions.push(actions.clone());
        }
    }

    pub(super) fn get(&self, version: u64) -> Option<&Actions> {
        let place = version.checked_sub(self.from)?;
        self.versions.get(usize::try_from(place).ok()?)
    }

    /// Lets go of the versions before `from`.
    ///
    /// - `next`: the version to come.
    pub(super) fn begin_at(&mut self, from: u64, next: u64) {
        let covered = from.saturating_sub(self.from);
        if self.is_over && from == next {
            *self = Self::begin(from);
        } else if !self.is_over && covered > 0 {
            let covered = usize::try_from(covered).unwrap_or(usize::MAX);
            let kept = self.versions.split_off(covered.min(self.versions.len()));
            *self = Self::begin(from);
            kept.iter().for_each(|actions| self.push(actions));
        }
    }
}

//! Room for a new segment: whether there is any, and the file that takes it.

use std::io;
use std::sync::atomic::Ordering;

use crate::disk::{Disk, DiskFile};
use crate::error::{AppendError, FullCause};
use crate::log::Log;
use crate::segments::in_blocks;

impl<D: Disk> Log<D> {
    /// Whether a file of `want` bytes may be made; the spare that it may be made of.
    pub(crate) fn check_room(
        &self,
        want: u64,
        reserved: bool,
    ) -> Result<Option<usize>, AppendError> {
        let spare = (0..self.spares.len()).max_by_key(|&i| self.spares[i].len.min(want));
        let held = spare.map_or(0, |i| in_blocks(self.spares[i].len));
        let need = want.saturating_sub(held);
        let own = if reserved {
            0
        } else {
            self.config.reserve_bytes
        };
        let own_room = self.used + need <= self.config.quota_bytes.saturating_sub(own);
        if need > 0 && !(own_room && self.budget.has_room(need, reserved)) {
            return Err(AppendError::Full {
                need,
                cause: FullCause::Quota,
            });
        }
        if need > 0 && !self.file_system_has(need, reserved) {
            return Err(AppendError::Full {
                need,
                cause: FullCause::FileSystem,
            });
        }
        Ok(spare)
    }

    /// Whether segments stand in the reserve: of this log's own quota, or of the common one.
    pub(crate) fn is_on_reserve(&self) -> bool {
        let spare = self.spare_bytes();
        let (config, budget) = (&self.config, &self.budget);
        let all = budget.used.load(Ordering::Relaxed);
        self.used - spare > config.quota_bytes.saturating_sub(config.reserve_bytes)
            || all.saturating_sub(spare) > budget.quota.saturating_sub(budget.reserve)
    }

    /// A file system that does not tell counts as roomy: the device will say so itself.
    pub(crate) fn file_system_has(&self, need: u64, reserved: bool) -> bool {
        let Ok(space) = self.disk.space() else {
            return true;
        };
        let share = space.total / 100 * u64::from(self.config.fs_reserve_percent);
        let kept = if reserved {
            0
        } else {
            share.max(self.config.fs_reserve_bytes)
        };
        space.available >= need.saturating_add(kept)
    }

    /// Makes the file `name`, durable with header and snapshot, which stand in `scratch`.
    pub(crate) fn make_file(
        &mut self,
        name: &str,
        want: u64,
        spare: Option<usize>,
    ) -> Result<(D::File, u64), AppendError> {
        let failed = |action, source: io::Error| {
            if matches!(
                source.kind(),
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
            ) {
                return AppendError::Full {
                    need: want,
                    cause: FullCause::Device,
                };
            }
            AppendError::Disk {
                action,
                file: name.to_owned(),
                source,
            }
        };
        let spare = spare.map(|i| self.spares.remove(i));
        let held = spare.as_ref().map_or(0, |s| s.len);
        self.give(in_blocks(held));
        let file = match &spare {
            Some(spare) => self
                .disk
                .rename(&spare.name, name)
                .and_then(|()| self.disk.open(name)),
            None => self.disk.create(name),
        };
        let made = file.map_err(|e| ("create", e)).and_then(|file| {
            file.allocate(held.max(want)).map_err(|e| ("allocate", e))?;
            // The name first: were a recycled file overwritten while its old name may still come
            // back, a crash would leave a released segment half there.
            self.disk
                .sync_dir()
                .map_err(|e| ("sync the folder of", e))?;
            file.write_at(&self.scratch, 0).map_err(|e| ("write", e))?;
            file.sync_data().map_err(|e| ("sync", e))?;
            Ok(file)
        });
        match made {
            Ok(file) => {
                let len = held.max(want);
                self.take(in_blocks(len));
                Ok((file, len))
            }
            Err((action, source)) => {
                // Whatever is left of it has no record; the next start drops it.
                let _ = self.disk.remove(name);
                Err(failed(action, source))
            }
        }
    }
}

//! Where a sink's dead letters go: opened where there are some, made with the first one.

use std::path::PathBuf;

use headwater_program::chain::chain;
use headwater_proto::time::UnixMicros;
use headwater_spool::{Disk, Reader, RealDisk};

use super::Commit;
use crate::metrics::LetterLook;
use crate::pipeline::undated::ClockBook;
use crate::sink::letters::{Letters, LettersError};

/// The dead letters of one running sink. A folder that cannot be used costs the letters and nothing else:
/// what they hold is named in gaps, and the lake has it.
pub(super) struct LetterBox {
    folder: PathBuf,
    letters: Option<Letters<RealDisk>>,
    lost: u64,
}

impl LetterBox {
    pub(super) fn open(sink: &str, folder: PathBuf) -> Self {
        let mut opened = Self {
            folder,
            letters: None,
            lost: 0,
        };
        if opened.folder.is_dir()
            && let Err(error) = opened.get()
        {
            let (folder, error) = (opened.folder.display(), chain(&error));
            tracing::error!(sink, %folder, error, "dead letters cannot be kept");
        }
        opened
    }

    fn get(&mut self) -> Result<&mut Letters<RealDisk>, LettersError> {
        let letters = match self.letters.take() {
            Some(letters) => letters,
            None => Letters::open(RealDisk::open(&self.folder)?)?,
        };
        Ok(self.letters.insert(letters))
    }

    /// Copies what `commit` says was refused.
    pub(super) fn keep<D: Disk>(
        &mut self,
        sink: &str,
        commit: &Commit,
        journal: &mut Reader<D>,
        (at, clock): (UnixMicros, &ClockBook),
    ) {
        let Some(refusal) = commit.refusal(at, clock) else {
            return;
        };
        let kept = self
            .get()
            .and_then(|letters| letters.keep(&refusal, journal));
        let (streams, cause) = (commit.refused.len(), commit.causes.values().next());
        match kept {
            Ok(letters) => {
                tracing::warn!(
                    sink,
                    streams,
                    letters,
                    cause,
                    "records are refused for good; `deadletters list` shows them"
                );
            }
            Err(error) => {
                self.lost += commit.refused_numbers();
                let error = chain(&error);
                tracing::error!(
                    sink,
                    streams,
                    cause,
                    error,
                    "records are refused for good, and no copy could be kept"
                );
            }
        }
    }

    pub(super) fn look(&self) -> LetterLook {
        let kept = self.letters.as_ref().map(Letters::look);
        LetterLook {
            lost: self.lost,
            ..kept.unwrap_or_default()
        }
    }
}

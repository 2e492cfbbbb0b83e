//! Where records come to rest. Each sink reads the journal at its own pace, with its own cursor.
//!
//! ```text
//! journal ──offer──► sink buffers ──stage──► plan ──► journal, synced ──publish──► committed
//! ```

pub mod hot;
pub mod lake;
pub mod rows;
pub(crate) mod worker;

use headwater_lake::audit::{self, AuditError};
use headwater_lake::{EpochState, Store};
use headwater_proto::delivery::End;
use headwater_proto::ids::{DeviceId, Epoch, Lane, Stream};
use headwater_spool::Disk;

use crate::pipeline::custody::Custody;

/// Gives a journal that is new beside an existing lake the marks that the lake proves; before the
/// first Welcome.
///
/// # Errors
/// [`AuditError`] if the lake cannot be read.
pub fn seed<D: Disk>(custody: &mut Custody<D>, store: &dyn Store) -> Result<(), AuditError> {
    for mark in audit::marks(store)? {
        let (Ok(device), Some(lane)) =
            (DeviceId::new(&mark.device_id), Lane::from_name(&mark.lane))
        else {
            continue;
        };
        let ended = match mark.state {
            Some(EpochState::Ended | EpochState::Closed | EpochState::Abandoned) => true,
            Some(EpochState::Open) | None => false,
        };
        let end = ended.then_some(End {
            first: mark.first,
            next: mark.next,
            clean: false,
        });
        // A plain device counts under each journal anew.
        if lane != Lane::Plain {
            let epoch = Epoch::new(mark.epoch);
            custody.seed(
                Stream {
                    device,
                    lane,
                    epoch,
                },
                &mark.held,
                end,
            );
        }
    }
    Ok(())
}

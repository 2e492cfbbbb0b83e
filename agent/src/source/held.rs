//! How far the collector holds what sources read: asked before a source that resumes reads on, so that one whose
//! spool is gone, or is an old copy, reads nothing twice.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::Stop;
use crate::pipeline::record::Stray;

/// How long a source waits for the collector's word; without one it reads on from what its own spool knows.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// How often it looks.
const LOOK: Duration = Duration::from_millis(10);

/// What the collector said. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct HeldPlaces(Arc<Mutex<Said>>);

#[derive(Debug, Default)]
struct Said {
    places: Option<Vec<Stray>>,
    /// A source began without it.
    missed: bool,
}

impl HeldPlaces {
    /// The collector has said it; whether that comes too late for a source.
    pub fn tell(&self, places: Vec<Stray>) -> bool {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        said.places = Some(places);
        said.missed
    }

    /// Waits for it on a thread; nothing if the collector does not answer in time, or the agent stops.
    #[must_use]
    pub fn wait(&self, stop: &Stop) -> Vec<Stray> {
        for _ in 0..PATIENCE.as_millis() / LOOK.as_millis() {
            {
                let said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(places) = &said.places {
                    return places.clone();
                }
            }
            if !stop.wait(LOOK) {
                return Vec::new();
            }
        }
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        said.missed = said.places.is_none();
        said.places.clone().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::record::{Cursor, SaidBy};

    #[test]
    fn a_source_hears_what_was_said_before_or_while_it_waits_and_waits_no_longer_than_the_agent_runs()
     {
        let (held, stop) = (HeldPlaces::default(), Stop::default());
        let place = Stray {
            said_by: SaidBy::Spool,
            name: "log".to_owned(),
            cursor: Cursor::default(),
        };
        let waits = std::thread::spawn({
            let (held, stop) = (held.clone(), stop.clone());
            move || held.wait(&stop)
        });
        let said = vec![place];
        assert!(!held.tell(said.clone()));
        assert_eq!(waits.join().unwrap(), said);
        assert_eq!(held.wait(&stop), said);
        stop.stop();
        assert_eq!(HeldPlaces::default().wait(&stop), []);
    }
}

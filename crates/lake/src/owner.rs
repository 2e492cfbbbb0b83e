//! Core: the owner of a lake: one writer at a time, told by one object.
//!
//! | who finds | does |
//! |---|---|
//! | no owner | writes itself down under the next term |
//! | its own journal | goes on under the same term |
//! | another journal whose lease has ended, or with [`Claim::take_over`] | takes over: the next term |
//! | another journal whose lease runs | is refused: [`LakeError::Owned`] |
//!
//! The lease tells when a takeover may be tried, by clocks that may be wrong. It fences nobody: an
//! owner that was stopped wakes up and commits. So a takeover commits its term as the next version
//! of every table, in table order, and only then reads what the lake holds. An earlier owner
//! finds its next version taken, reads the later term there, and stops for good. It cannot pass
//! that version, for versions have no gaps. `_headwater/owner.json` is one JSON object:
//!
//! | field | what |
//! |---|---|
//! | `owner_version` | 2 |
//! | `owner` | id of the journal, 16 hexadecimal digits |
//! | `term` | rises by takeovers, from 1 |
//! | `since_us` | start of the process that owns it: two of one journal are told apart by it |
//! | `lease_until_us` | end of the lease, Unix µs; an owner that ends in order ends its lease |
//! | `sha256` | of all before this line: see `digest::seal` |

use headwater_proto::ids::JournalId;
use serde::{Deserialize, Serialize};

use crate::date::instant_text;
use crate::digest::{is_sealed, seal};
use crate::error::LakeError;
use crate::paths::OWNER_PATH;
use crate::store::{Store, Swap, Tag};

/// Version of the owner's form.
const OWNER_VERSION: u32 = 2;

/// Lease that is asked for unless the caller says otherwise: a takeover without an operator waits as
/// long at most, and the owner object is written twice in that time.
pub const LEASE_US: i64 = 60_000_000;

/// Times that a claim is tried while others change the owner.
const CLAIM_ATTEMPTS: u32 = 8;

/// Who asks for a lake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// The journal whose records will be written.
    pub owner: JournalId,
    /// The present time, Unix µs.
    pub now_us: i64,
    /// How long the lease runs, µs.
    pub lease_us: i64,
    /// Whether to take the lake from an owner whose lease runs.
    pub take_over: bool,
    /// Whether there must be a lake: where there is none, none is begun.
    pub is_known: bool,
    /// The first position of the journal that it does not know to be in the lake: a file of what stands
    /// before was committed.
    pub committed_to: u64,
}

impl Claim {
    /// A claim that takes the lake from no living owner.
    #[must_use]
    pub const fn new(owner: JournalId, now_us: i64) -> Self {
        Self {
            owner,
            now_us,
            lease_us: LEASE_US,
            take_over: false,
            is_known: false,
            committed_to: 0,
        }
    }
}

/// Who owns a lake, as its object says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// The journal.
    pub journal: JournalId,
    /// Its term.
    pub term: u64,
    /// Start of its process, Unix µs.
    pub since_us: i64,
    /// End of its lease, Unix µs.
    pub lease_until_us: i64,
}

#[derive(Serialize, Deserialize)]
struct RawOwner {
    owner_version: u32,
    owner: String,
    term: u64,
    since_us: i64,
    lease_until_us: i64,
}

impl Owner {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let raw = RawOwner {
            owner_version: OWNER_VERSION,
            owner: self.journal.to_string(),
            term: self.term,
            since_us: self.since_us,
            lease_until_us: self.lease_until_us,
        };
        let json = serde_json::to_string_pretty(&raw).expect("an owner is plain JSON");
        seal(&json).into_bytes()
    }

    /// # Errors
    /// [`LakeError::OwnerUnreadable`].
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, LakeError> {
        let unreadable = || LakeError::OwnerUnreadable;
        let raw: RawOwner = serde_json::from_slice(bytes).map_err(|_| unreadable())?;
        if raw.owner_version != OWNER_VERSION || !is_sealed(bytes) {
            return Err(unreadable());
        }
        let journal = u64::from_str_radix(&raw.owner, 16).map_err(|_| unreadable())?;
        Ok(Self {
            journal: JournalId(journal),
            term: raw.term,
            since_us: raw.since_us,
            lease_until_us: raw.lease_until_us,
        })
    }

    /// When it was last known to run, by its own clock, Unix µs: a lease is renewed for as long as it lasts. Where the
    /// lease ends before its start, somebody set the clock back and believes it.
    #[must_use]
    pub const fn last_known_us(&self) -> i64 {
        let renewed_us = self.lease_until_us.saturating_sub(LEASE_US);
        if self.since_us <= self.lease_until_us && renewed_us < self.since_us {
            self.since_us
        } else {
            renewed_us
        }
    }

    /// Whether both are the same process under the same term.
    fn is_same_life(&self, other: &Self) -> bool {
        let life = |o: &Self| (o.journal, o.term, o.since_us);
        life(self) == life(other)
    }
}

/// Reads who owns the lake.
///
/// # Errors
/// [`LakeError::Store`], [`LakeError::OwnerUnreadable`].
pub(crate) fn look(store: &dyn Store) -> Result<Option<(Owner, Tag)>, LakeError> {
    let found = store.get_tagged(OWNER_PATH)?;
    found
        .map(|found| Ok((Owner::decode(&found.bytes)?, found.tag)))
        .transpose()
}

/// The owner that a claim makes.
///
/// - `found`: the owner that is recorded.
/// - `seen`: the highest term in the head and the logs.
///
/// # Errors
/// [`LakeError::Owned`] if the claim has to wait, [`LakeError::OwnerUnreadable`] if there are no more
/// terms.
pub(crate) fn claimed(found: Option<&Owner>, claim: &Claim, seen: u64) -> Result<Owner, LakeError> {
    let goes_on = match found {
        Some(owner) if owner.journal == claim.owner => owner.term >= seen,
        Some(owner) if claim.take_over || claim.now_us >= owner.lease_until_us => false,
        Some(owner) => {
            return Err(LakeError::Owned {
                owner: owner.journal,
                term: owner.term,
                until: instant_text(owner.lease_until_us),
                now: instant_text(claim.now_us),
            });
        }
        None => false,
    };
    let known = found.map_or(0, |owner| owner.term);
    let term = if goes_on {
        known
    } else {
        // Nobody takes over so often: an object or a log is damaged.
        let next = known.max(seen).checked_add(1);
        next.ok_or(LakeError::OwnerUnreadable)?
    };
    // A clock that stands before that is wrong, and what is known of the time must outlive it. Two lives of one
    // journal never begin at once.
    let last_us = found.map_or(i64::MIN, Owner::last_known_us);
    let since_us = if claim.now_us < last_us {
        last_us.saturating_add(1)
    } else {
        claim.now_us
    };
    Ok(Owner {
        journal: claim.owner,
        term,
        since_us,
        lease_until_us: since_us.saturating_add(claim.lease_us),
    })
}

/// What an owner holds to prove that it is the one.
#[derive(Debug)]
pub(crate) struct Ownership {
    owner: Owner,
    tag: Tag,
    lease_us: i64,
    /// Term and journal of a later owner, once one was seen: nothing more is written then.
    lost: Option<(u64, Option<JournalId>)>,
}

impl Ownership {
    /// Writes the owner down, on top of the one that was found.
    ///
    /// # Errors
    /// [`LakeError::Owned`] if somebody else was quicker.
    pub(crate) fn acquire(
        store: &dyn Store,
        mut found: Option<(Owner, Tag)>,
        claim: &Claim,
        seen: u64,
    ) -> Result<Self, LakeError> {
        for _ in 0..CLAIM_ATTEMPTS {
            let owner = claimed(found.as_ref().map(|(owner, _)| owner), claim, seen)?;
            let expected = found.as_ref().map(|(_, tag)| tag);
            if let Swap::Done(tag) = store.swap(OWNER_PATH, expected, &owner.encode())? {
                return Ok(Self {
                    owner,
                    tag,
                    lease_us: claim.lease_us,
                    lost: None,
                });
            }
            found = look(store)?;
        }
        let (owner, term) = found.map_or((claim.owner, seen), |(o, _)| (o.journal, o.term));
        let now = instant_text(claim.now_us);
        Err(LakeError::Owned {
            owner,
            term,
            until: now.clone(),
            now,
        })
    }

    pub(crate) const fn owner(&self) -> &Owner {
        &self.owner
    }

    pub(crate) const fn term(&self) -> u64 {
        self.owner.term
    }

    /// # Errors
    /// [`LakeError::Fenced`] if a later owner was seen.
    pub(crate) fn check(&self) -> Result<(), LakeError> {
        match self.lost {
            Some((term, owner)) => Err(LakeError::Fenced { term, owner }),
            None => Ok(()),
        }
    }

    /// Notes an error that says that there is a later owner, so that nothing more is written.
    pub(crate) fn note(&mut self, error: LakeError) -> LakeError {
        if let LakeError::Fenced { term, owner } = error {
            self.lost = Some((term, owner));
        }
        error
    }

    /// Asks the lake whether this is still the owner.
    ///
    /// # Errors
    /// [`LakeError::Fenced`] if it is not.
    pub(crate) fn confirm(&mut self, store: &dyn Store) -> Result<(), LakeError> {
        self.check()?;
        match look(store)? {
            Some((_, tag)) if tag == self.tag => Ok(()),
            // A renewal of ours whose answer was lost.
            Some((owner, tag)) if owner.is_same_life(&self.owner) => {
                (self.owner, self.tag) = (owner, tag);
                Ok(())
            }
            Some((owner, _)) => Err(self.note(LakeError::Fenced {
                term: owner.term,
                owner: Some(owner.journal),
            })),
            // Somebody removed the object; the terms in the logs still tell.
            None => match store.swap(OWNER_PATH, None, &self.owner.encode())? {
                Swap::Done(tag) => {
                    self.tag = tag;
                    Ok(())
                }
                Swap::Changed => self.confirm_present(store),
            },
        }
    }

    fn confirm_present(&mut self, store: &dyn Store) -> Result<(), LakeError> {
        match look(store)? {
            Some((owner, tag)) if owner.is_same_life(&self.owner) => {
                (self.owner, self.tag) = (owner, tag);
                Ok(())
            }
            found => {
                let owner = found.map(|(owner, _)| owner);
                Err(self.note(LakeError::Fenced {
                    term: owner.map_or(self.term(), |owner| owner.term),
                    owner: owner.map(|owner| owner.journal),
                }))
            }
        }
    }

    /// Renews the lease once half of it is over.
    ///
    /// # Errors
    /// [`LakeError::Fenced`] if there is a later owner; otherwise to be tried again.
    pub(crate) fn keep(&mut self, store: &dyn Store, now_us: i64) -> Result<(), LakeError> {
        self.check()?;
        let left = self.owner.lease_until_us.saturating_sub(now_us);
        // A clock that was set back leaves more than was asked for.
        if left > self.lease_us / 2 && left <= self.lease_us {
            return Ok(());
        }
        self.lease_until(store, now_us.saturating_add(self.lease_us))
    }

    /// Ends the lease: another journal may take over at once.
    ///
    /// # Errors
    /// As [`Self::keep`].
    pub(crate) fn release(&mut self, store: &dyn Store, now_us: i64) -> Result<(), LakeError> {
        self.check()?;
        self.lease_until(store, now_us)
    }

    fn lease_until(&mut self, store: &dyn Store, until_us: i64) -> Result<(), LakeError> {
        let renewed = Owner {
            lease_until_us: until_us,
            ..self.owner
        };
        match store.swap(OWNER_PATH, Some(&self.tag), &renewed.encode())? {
            Swap::Done(tag) => {
                (self.owner, self.tag) = (renewed, tag);
                Ok(())
            }
            // Changed by us if an answer was lost; the next call renews then.
            Swap::Changed => self.confirm(store),
        }
    }

    /// Goes on as the owner of another name under the next term.
    ///
    /// # Errors
    /// [`LakeError::Fenced`] if there is a later owner.
    pub(crate) fn rename(
        &mut self,
        store: &dyn Store,
        journal: JournalId,
        now_us: i64,
    ) -> Result<(), LakeError> {
        self.confirm(store)?;
        let renamed = Owner {
            journal,
            term: self
                .owner
                .term
                .checked_add(1)
                .ok_or(LakeError::OwnerUnreadable)?,
            since_us: now_us,
            lease_until_us: now_us.saturating_add(self.lease_us),
        };
        match store.swap(OWNER_PATH, Some(&self.tag), &renamed.encode())? {
            Swap::Done(tag) => {
                (self.owner, self.tag) = (renamed, tag);
                Ok(())
            }
            Swap::Changed => self.confirm_present(store),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemStore;
    use proptest::prelude::*;

    const A: JournalId = JournalId(0xa);
    const B: JournalId = JournalId(0xb);

    fn acquire(store: &MemStore, claim: &Claim) -> Result<Ownership, LakeError> {
        Ownership::acquire(store, look(store)?, claim, 0)
    }

    #[test]
    fn the_form_of_version_2_never_changes() {
        let owner = Owner {
            journal: A,
            term: 3,
            since_us: 1_795_305_600_000_000,
            lease_until_us: 1_795_305_660_000_000,
        };
        let golden = include_bytes!("../tests/golden/owner_2.json");
        assert_eq!(owner.encode(), golden);
        assert_eq!(Owner::decode(golden).unwrap(), owner);
    }

    #[test]
    fn a_second_collector_waits_for_the_lease_or_is_told_to_take_over() {
        let store = MemStore::new();
        assert_eq!(acquire(&store, &Claim::new(A, 0)).unwrap().term(), 1);
        let claim = Claim::new(B, LEASE_US - 1);
        let error = acquire(&store, &claim).unwrap_err();
        assert!(matches!(
            error,
            LakeError::Owned {
                owner: A,
                term: 1,
                ..
            }
        ));
        let text = error.to_string();
        assert!(
            text.contains("000000000000000a") && text.contains("--take-over"),
            "{text}"
        );
        let told = Claim {
            take_over: true,
            ..claim
        };
        let waited = Claim::new(A, LEASE_US - 1 + LEASE_US);
        assert_eq!(acquire(&store, &told).unwrap().term(), 2);
        assert_eq!(acquire(&store, &waited).unwrap().term(), 3);
    }

    #[test]
    fn the_same_journal_goes_on_under_its_term() {
        let store = MemStore::new();
        acquire(&store, &Claim::new(A, 0)).unwrap();
        assert_eq!(acquire(&store, &Claim::new(A, 5)).unwrap().term(), 1);
        // A log that knows of a later term than the owner object makes it a takeover.
        let found = look(&store).unwrap();
        let later = Ownership::acquire(&store, found, &Claim::new(A, 6), 4).unwrap();
        assert_eq!(later.term(), 5);
    }

    #[test]
    fn the_lease_is_renewed_in_its_second_half_alone() {
        let store = MemStore::new();
        let mut owner = acquire(&store, &Claim::new(A, 0)).unwrap();
        let calls = store.operations();
        owner.keep(&store, LEASE_US / 2 - 1).unwrap();
        assert_eq!(store.operations(), calls);
        owner.keep(&store, LEASE_US / 2).unwrap();
        assert_eq!(store.operations(), calls + 1);
        assert_eq!(owner.owner().lease_until_us, LEASE_US / 2 + LEASE_US);
        // The clock was set back by a day.
        owner.keep(&store, -86_400_000_000).unwrap();
        assert_eq!(owner.owner().lease_until_us, LEASE_US - 86_400_000_000);
    }

    #[test]
    fn an_owner_that_ended_in_order_is_not_waited_for() {
        let store = MemStore::new();
        let mut owner = acquire(&store, &Claim::new(A, 0)).unwrap();
        owner.release(&store, 10).unwrap();
        assert_eq!(acquire(&store, &Claim::new(B, 10)).unwrap().term(), 2);
    }

    #[test]
    fn who_was_taken_over_from_notices_whatever_it_does() {
        type Act = fn(&mut Ownership, &MemStore) -> Result<(), LakeError>;
        let acts: [Act; 4] = [
            |owner, store| owner.confirm(store),
            |owner, store| owner.keep(store, LEASE_US),
            |owner, store| owner.release(store, 1),
            |owner, store| owner.rename(store, JournalId(7), 1),
        ];
        for act in acts {
            let store = MemStore::new();
            let mut old = acquire(&store, &Claim::new(A, 0)).unwrap();
            let claim = Claim {
                take_over: true,
                ..Claim::new(B, 1)
            };
            acquire(&store, &claim).unwrap();
            let owner = look(&store).unwrap();
            for _ in 0..2 {
                let error = act(&mut old, &store).unwrap_err();
                assert!(matches!(
                    error,
                    LakeError::Fenced {
                        term: 2,
                        owner: Some(B)
                    }
                ));
            }
            assert_eq!(look(&store).unwrap(), owner);
        }
    }

    #[test]
    fn two_processes_of_one_journal_are_told_apart() {
        let store = MemStore::new();
        let mut first = acquire(&store, &Claim::new(A, 0)).unwrap();
        acquire(&store, &Claim::new(A, 1)).unwrap();
        assert!(matches!(
            first.confirm(&store),
            Err(LakeError::Fenced {
                term: 1,
                owner: Some(A)
            })
        ));
    }

    #[test]
    fn a_renewal_whose_answer_is_lost_is_taken_for_ours() {
        let store = MemStore::new();
        let mut owner = acquire(&store, &Claim::new(A, 0)).unwrap();
        store.crash_after_landing(0);
        assert!(owner.keep(&store, LEASE_US).is_err());
        store.restart();
        owner.confirm(&store).unwrap();
        owner.keep(&store, 2 * LEASE_US).unwrap();
    }

    #[test]
    fn an_object_that_was_removed_is_written_again() {
        let store = MemStore::new();
        let mut owner = acquire(&store, &Claim::new(A, 0)).unwrap();
        store.delete(OWNER_PATH).unwrap();
        owner.confirm(&store).unwrap();
        assert_eq!(look(&store).unwrap().unwrap().0, *owner.owner());
    }

    #[test]
    fn a_claim_by_a_clock_that_is_behind_keeps_what_is_known_of_the_time() {
        let owner = |since_us, lease_until_us| Owner {
            journal: A,
            term: 1,
            since_us,
            lease_until_us,
        };
        // It renewed its lease; it ended before that; its clock was set back, and believed.
        for (since_us, lease_until_us, last_us) in [
            (7, LEASE_US + 100, 100),
            (7, LEASE_US + 7, 7),
            (7, 8, 7),
            (1_000, 500, 500 - LEASE_US),
        ] {
            assert_eq!(owner(since_us, lease_until_us).last_known_us(), last_us);
        }
        let known = owner(7, LEASE_US + 100);
        let new = claimed(Some(&known), &Claim::new(A, 5), 0).unwrap();
        assert_eq!((new.since_us, new.lease_until_us), (101, LEASE_US + 101));
        assert!(!new.is_same_life(&known));
        let new = claimed(Some(&known), &Claim::new(A, 200), 0).unwrap();
        assert_eq!(new.since_us, 200);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Owner::decode(&bytes);
        }

        #[test]
        fn a_claim_never_lowers_the_term_and_raises_it_for_another_journal(
            found in proptest::option::of((0u64..3, 0u64..9, 0i64..100)),
            (owner, now_us, seen, take_over) in (0u64..3, 0i64..100, 0u64..9, any::<bool>()),
        ) {
            let found = found.map(|(journal, term, lease_until_us)| Owner {
                journal: JournalId(journal), term, since_us: 0, lease_until_us,
            });
            let claim = Claim { lease_us: 10, take_over, ..Claim::new(JournalId(owner), now_us) };
            match claimed(found.as_ref(), &claim, seen) {
                Ok(new) => {
                    let known = found.map_or(0, |owner| owner.term);
                    prop_assert!(new.term >= known.max(seen));
                    let is_same = found.is_some_and(|owner| owner.journal == new.journal);
                    prop_assert!(is_same || new.term > known.max(seen));
                    prop_assert!(new.since_us >= now_us);
                    prop_assert_eq!(new.lease_until_us, new.since_us + 10);
                }
                Err(_) => {
                    let found = found.unwrap();
                    prop_assert!(!take_over && found.journal != claim.owner);
                    prop_assert!(now_us < found.lease_until_us);
                }
            }
        }
    }
}

//! Core: bundles. Each record is judged on its own; what is new is appended with its envelope.

use headwater_gate::ConnId;
use headwater_gate::Token;
use headwater_proto::bundle::{Bundle, BundleHead, MAX_RECORDS, Record as BundleRecord};
use headwater_proto::codec::BatchHeader;
use headwater_proto::delivery::Verdict as Judgement;
use headwater_proto::frame::{Frame, Frames, Kind};
use headwater_proto::ids::{DeviceId, SeqRange, Stream};
use headwater_proto::message::{self, Hello, Reject, RejectReason, TimeBase};
use headwater_proto::refused;
use headwater_proto::sabotage::{self, Bug};
use headwater_proto::text::{self, TextHeader};
use headwater_proto::time::Now;
use headwater_spool::Disk;

use super::{Custody, Leaves, Refused};
use crate::pipeline::dating;
use crate::pipeline::envelope::{BatchHead, Clock, Reason, Record, SchemaHead, TimeClass, Verdict};
use crate::pipeline::ledger;
use crate::pipeline::schemas::Bound;
use crate::pipeline::snapshot::{HOLE_BYTES, NEW_BYTES, NUMBER_BYTES, RANGE_BYTES, STREAM_BYTES};
use crate::pipeline::time_bases::BASE_BYTES;

impl<D: Disk> Custody<D> {
    pub(super) fn up(
        &mut self,
        conn: ConnId,
        device: &DeviceId,
        payload: &[u8],
        token: Option<Token>,
        now: Now,
    ) -> Result<(), Refused> {
        if Bundle::is_bundle(payload) {
            self.bundles(conn, device, payload, now)?;
        } else {
            self.messages(conn, device, payload, now)?;
        }
        self.sessions.owe_puback(conn, token);
        Ok(())
    }

    /// The bundles of one publish, in order. A publish that finds no room half-way is taken again from
    /// its start: what was taken of it is a repeat then.
    fn bundles(
        &mut self,
        conn: ConnId,
        device: &DeviceId,
        publish: &[u8],
        now: Now,
    ) -> Result<(), Refused> {
        let mut rest = publish;
        let mut records = 0;
        while !rest.is_empty() {
            let opened = Bundle::first(rest).ok().filter(|(bundle, _)| {
                // A bundle is work too, if it holds nothing.
                records += 1 + u32::from(bundle.count);
                records <= u32::from(MAX_RECORDS) + 1
            });
            let Some((bundle, after)) = opened else {
                // Nothing from here on can be trusted, not even whose it is: its sender sends again
                // when the Ack does not come.
                self.counters.malformed_total += 1;
                return Ok(());
            };
            self.bundle(conn, device, &bundle, now)?;
            rest = after;
        }
        Ok(())
    }

    fn messages(
        &mut self,
        conn: ConnId,
        device: &DeviceId,
        payload: &[u8],
        now: Now,
    ) -> Result<(), Refused> {
        for item in Frames::new(payload) {
            let hello = match item {
                Ok((frame, _)) if frame.kind == Kind::Hello => {
                    message::decode::<Hello>(frame.payload).ok()
                }
                Ok((frame, _)) if frame.kind == Kind::Stat => continue,
                Ok(_) | Err(_) => None,
            };
            match hello {
                Some(hello) if self.sessions.speaks_for(conn, device, &hello.origin) => {
                    self.hello(conn, device, &hello, now)?;
                }
                Some(_) | None => self.counters.malformed_total += 1,
            }
        }
        Ok(())
    }

    fn bundle(
        &mut self,
        conn: ConnId,
        device: &DeviceId,
        bundle: &Bundle<'_>,
        now: Now,
    ) -> Result<(), Refused> {
        let head = &bundle.head;
        let whole = SeqRange::new(head.first, head.first + u64::from(bundle.count));
        if !self.sessions.speaks_for(conn, device, &head.origin) {
            self.reject(conn, head, whole, RejectReason::Forbidden);
            return Ok(());
        }
        let listed = self
            .sessions
            .oldest(conn, &head.origin, head.lane, head.epoch);
        if listed.is_none() {
            self.reject(conn, head, whole, RejectReason::NotInHello);
            return Ok(());
        }
        let stream = Stream {
            device: head.origin.clone(),
            lane: head.lane,
            epoch: head.epoch,
        };
        if self.streams.ledger().track(&stream).is_none() {
            // There was no room for it at the Hello, or it was let go since.
            let reason = if self.streams.ledger().has_room(&stream) {
                RejectReason::NotInHello
            } else {
                RejectReason::NotDurable
            };
            self.reject(conn, head, whole, reason);
            return Ok(());
        }
        let via = (*device != head.origin).then(|| device.clone());
        let dating = self.dating_of(conn, head, now);
        for record in bundle.records() {
            match record.seq {
                None => self.schema(conn, head, &record.frame)?,
                Some(seq) => {
                    self.numbered(conn, head, via.as_ref(), dating, seq, &record, now)?;
                }
            }
        }
        self.sessions.owe_ack(conn, &stream);
        Ok(())
    }

    fn schema(
        &mut self,
        conn: ConnId,
        head: &BundleHead,
        frame: &Frame<'_>,
    ) -> Result<(), Refused> {
        let mut at = 0;
        let number = headwater_proto::varint::get(frame.payload, &mut at)
            .and_then(|number| u32::try_from(number).ok());
        let (Some(number), Some(bytes)) = (number, frame.payload.get(at..)) else {
            self.counters.malformed_total += 1;
            return Ok(());
        };
        let schema = SchemaHead {
            origin: head.origin.clone(),
            epoch: head.epoch,
            number,
        };
        match self.journal.schemas.judge(&schema, bytes) {
            Bound::New => {
                // What is named by its SHA-256 is in the snapshot already.
                let more = NUMBER_BYTES + bytes.len();
                if self.has_state_room(more, NEW_BYTES) {
                    self.append_schema(schema, bytes)?;
                    self.journal.grew(more);
                } else {
                    self.counters.schemas_full_total += 1;
                    self.not_taken(conn, schema, bytes);
                }
            }
            Bound::Same => {}
            Bound::Unknown => {
                if let Some(id) = text::referred(bytes) {
                    self.sessions.refer(conn, schema, *id);
                }
            }
            // Its batches are then refused as unknown or decoded by what the number first meant.
            Bound::Conflict | Bound::Invalid => {
                self.counters.malformed_total += 1;
                self.not_taken(conn, schema, bytes);
            }
            Bound::Full => {
                self.counters.schemas_full_total += 1;
                self.not_taken(conn, schema, bytes);
            }
        }
        Ok(())
    }

    /// Appends what a schema number means.
    fn append_schema(&mut self, head: SchemaHead, bytes: &[u8]) -> Result<u64, Refused> {
        let told = self.journal.told_as(&head, bytes);
        self.append(&Record::Schema(head, &told), Leaves::Three)
    }

    /// A schema is wrong or finds no room.
    fn not_taken(&mut self, conn: ConnId, schema: SchemaHead, bytes: &[u8]) {
        if text::is_dictionary(bytes) {
            self.sessions.refuse(conn, schema);
        }
    }

    /// Whether the number is bound, now that another device may have sent the dictionary it stands for.
    fn knows(&mut self, conn: ConnId, number: &SchemaHead) -> Result<bool, Refused> {
        if self.journal.schemas.knows(number) {
            return Ok(true);
        }
        let Some(id) = self.sessions.referred(conn, number) else {
            return Ok(false);
        };
        let reference = text::refer(&id);
        let more = NUMBER_BYTES + reference.len();
        let is_kept = self.journal.schemas.judge(number, &reference) == Bound::New;
        if !is_kept || !self.has_state_room(more, NEW_BYTES) {
            return Ok(false);
        }
        self.append_schema(number.clone(), &reference)?;
        self.journal.grew(more);
        Ok(true)
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "what a bundle says of one of its records"
    )]
    fn numbered(
        &mut self,
        conn: ConnId,
        head: &BundleHead,
        via: Option<&DeviceId>,
        (clock, dated_at_us): (Clock, Option<i64>),
        seq: u64,
        record: &BundleRecord<'_>,
        now: Now,
    ) -> Result<(), Refused> {
        let stream = Stream {
            device: head.origin.clone(),
            lane: head.lane,
            epoch: head.epoch,
        };
        let clock = match (dated_at_us, times_of(&record.frame)) {
            (Some(dated_at_us), Some(times)) => dating::drifted(clock, dated_at_us, times),
            _ => clock,
        };
        let one = SeqRange::new(seq, seq + 1);
        let mut needs = Needs::default();
        let verdict = match self.streams.ledger().judge(&stream, seq, &record.frame) {
            Judgement::Store => {
                match self.admit(conn, head, via, seq, record, now)? {
                    Admitted::Yes(found) => needs = found,
                    Admitted::Later => return Ok(()),
                    Admitted::No(reason) => {
                        self.reject(conn, head, one, reason);
                        return Ok(());
                    }
                }
                if clock.class == TimeClass::Undated && has_times(record.frame.kind) {
                    self.counters.undated_total += 1;
                }
                Verdict::Store
            }
            Judgement::Repeat => {
                self.counters.repeats_total += 1;
                if sabotage::is(Bug::AckUnsyncedRepeat) {
                    self.ack_at_once(conn, &stream, now);
                }
                return Ok(());
            }
            Judgement::Conflict => {
                self.counters.identity_conflicts_total += 1;
                self.reject(conn, head, one, RejectReason::Conflict);
                Verdict::Quarantine(Reason::IdentityConflict)
            }
            Judgement::Refuse(reason) => {
                self.reject(conn, head, one, reason);
                return Ok(());
            }
        };
        let samples = needs.samples;
        let schema = needs.schema.map(|number| SchemaHead {
            origin: head.origin.clone(),
            epoch: head.epoch,
            number,
        });
        let envelope = BatchHead {
            stream,
            seq,
            verdict,
            at: now.wall,
            clock,
            via: via.cloned(),
            rules: self.journal.rules_id(),
        };
        // A gap makes room at its sender, so it may use the reserve.
        let leaves = if matches!(record.frame.kind, Kind::Gap | Kind::EpochEnd) {
            Leaves::Two
        } else {
            Leaves::Three
        };
        let record_of = Record::Batch(envelope, record.bytes);
        self.append_with(schema.as_ref(), &record_of, leaves)?;
        if verdict == Verdict::Store {
            self.counters.records_stored_total += 1;
            self.counters.record_bytes_stored_total += record.bytes.len() as u64;
            self.counters.samples_stored_total += u64::from(samples);
        }
        Ok(())
    }

    /// Whether a record that was not stored before may be: what it names, what it adds to the snapshot,
    /// the schema that it needs.
    fn admit(
        &mut self,
        conn: ConnId,
        head: &BundleHead,
        via: Option<&DeviceId>,
        seq: u64,
        record: &BundleRecord<'_>,
        now: Now,
    ) -> Result<Admitted, Refused> {
        let sender = via.unwrap_or(&head.origin);
        if let Some(named) = ledger::named_by(&record.frame) {
            if !self.sessions.speaks_for(conn, sender, &named.device) {
                return Ok(Admitted::No(RejectReason::Forbidden));
            }
            let more = STREAM_BYTES + RANGE_BYTES;
            let fits =
                self.streams.ledger().has_room(&named) && self.has_state_room(more, HOLE_BYTES);
            if !fits || !self.recall(&named) {
                return Ok(Admitted::No(RejectReason::NotDurable));
            }
            self.journal.grew(more);
        }
        if record.frame.kind == Kind::TimeBase {
            let base = message::decode::<TimeBase>(record.frame.payload).ok();
            if base.is_some_and(|base| !self.sessions.speaks_for(conn, sender, &base.origin)) {
                return Ok(Admitted::No(RejectReason::Forbidden));
            }
            if !self.has_state_room(BASE_BYTES, NEW_BYTES) {
                return Ok(Admitted::No(RejectReason::NotDurable));
            }
            self.journal.grew(BASE_BYTES);
        }
        let stream = Stream {
            device: head.origin.clone(),
            lane: head.lane,
            epoch: head.epoch,
        };
        let opens_hole = self.streams.opens_hole(&stream, seq);
        if opens_hole {
            if !self.has_state_room(RANGE_BYTES, HOLE_BYTES) {
                return Ok(Admitted::No(RejectReason::TooManyHoles));
            }
            self.journal.grew(RANGE_BYTES);
        }
        let needs = needs(&record.frame);
        let Some(number) = needs.schema else {
            return Ok(Admitted::Yes(needs));
        };
        let number = SchemaHead {
            origin: head.origin.clone(),
            epoch: head.epoch,
            number,
        };
        if self.knows(conn, &number)? {
            return Ok(Admitted::Yes(needs));
        }
        if self.sessions.is_refused(conn, &number) {
            return Ok(Admitted::No(RejectReason::Unsupported));
        }
        let has_asked = self.sessions.ask(conn, head.lane, number, now);
        self.counters.schema_requests_total += u64::from(has_asked);
        Ok(Admitted::Later)
    }

    /// How the times of a bundle's records become Unix time, and the uptime at which its boot is dated.
    fn dating_of(&mut self, conn: ConnId, head: &BundleHead, now: Now) -> (Clock, Option<i64>) {
        let Some(sightings) = self.sessions.sightings(conn, &head.origin) else {
            return (Clock::UNDATED, None);
        };
        if let Some(uptime_ms) = head.uptime_ms {
            sightings.note(head.boot, uptime_ms, head.wall, now);
        }
        let time_base = self
            .streams
            .ledger()
            .time_bases()
            .get(&head.origin, head.boot);
        let clock = dating::date(head, sightings, time_base, now).unwrap_or(Clock::UNDATED);
        (clock, dating::dated_at_us(head, time_base))
    }

    /// Acknowledges what may not be durable: only to see that a test finds it.
    fn ack_at_once(&mut self, conn: ConnId, stream: &Stream, now: Now) {
        let Stream {
            device,
            lane,
            epoch,
        } = stream;
        let oldest = self.sessions.oldest(conn, device, *lane, *epoch);
        let mark = oldest.and_then(|oldest| self.streams.mark(stream, oldest));
        let terms = self.terms(now);
        self.sessions.ack(conn, device, mark.as_slice(), terms);
    }

    fn reject(&mut self, conn: ConnId, head: &BundleHead, range: SeqRange, reason: RejectReason) {
        if range.is_empty() {
            return;
        }
        self.counters.rejects_total += 1;
        let (origin, lane, epoch) = (head.origin.clone(), head.lane, head.epoch);
        self.sessions.send(
            conn,
            &Reject {
                origin,
                lane,
                epoch,
                range,
                reason,
            },
        );
    }
}

/// What becomes of a record before custody.
enum Admitted {
    /// It may be stored.
    Yes(Needs),
    /// It will be sent again, with the schema that was asked for.
    Later,
    /// It is refused.
    No(RejectReason),
}

/// What a record's frame says of itself.
#[derive(Default)]
struct Needs {
    samples: u32,
    /// Number of the schema that its batch needs, or of its text's dictionary.
    schema: Option<u32>,
}

fn needs(frame: &Frame<'_>) -> Needs {
    if frame.kind == Kind::Batch
        && let Ok(batch) = BatchHeader::peek(frame.payload)
    {
        return Needs {
            samples: batch.samples,
            schema: Some(batch.schema_no),
        };
    }
    if frame.kind == Kind::Refused
        && let Some(refused) = refused::Refused::decode(frame.payload)
    {
        return Needs {
            samples: refused.count,
            schema: None,
        };
    }
    if frame.kind == Kind::Text
        && let Some((text, _)) = TextHeader::read(frame.payload)
    {
        return Needs {
            samples: 0,
            schema: text.dictionary,
        };
    }
    Needs::default()
}

/// Earliest and latest time of a record, as its maker counts.
fn times_of(frame: &Frame<'_>) -> Option<(i64, i64)> {
    if frame.kind == Kind::Batch {
        let header = BatchHeader::peek(frame.payload).ok()?;
        Some((header.first_time_us, header.last_time_us))
    } else if frame.kind == Kind::Text {
        let (header, _) = TextHeader::read(frame.payload)?;
        Some((header.first_time_us, header.last_time_us))
    } else if frame.kind == Kind::Refused {
        Some(refused::Refused::decode(frame.payload)?.span_us())
    } else {
        None
    }
}

/// Whether a record's own times need its bundle's clock.
const fn has_times(kind: Kind) -> bool {
    matches!(kind, Kind::Batch | Kind::Text | Kind::Refused)
}

//! Core: bundles. Each record is judged on its own; what is new is appended with its envelope.

use headwater_proto::bundle::{Bundle, BundleHead, Bundles, Record as BundleRecord};
use headwater_proto::codec::BatchHeader;
use headwater_proto::delivery::Verdict as Judgement;
use headwater_proto::frame::{Frame, Kind};
use headwater_proto::ids::{DeviceId, SeqRange, Stream};
use headwater_proto::message::{self, EpochEnd, Gap, Reject, RejectReason, TimeBase};
use headwater_proto::portion::Portion;
use headwater_proto::refused;
use headwater_proto::sabotage::{self, Bug};
use headwater_proto::text;
use headwater_spool::Disk;

use super::super::{Crowd, Leaves, Output, Refused, clock};
use super::Intake;
use crate::pipeline::dating;
use crate::pipeline::envelope::{
    BatchHead, Clock, Evidence, PortionHead, Reason, Record, SchemaHead, Span, TimeClass, Verdict,
};
use crate::pipeline::ledger::{self, Around, Ledger};
use crate::pipeline::schemas::{self, Bound};
use crate::pipeline::snapshot::{HOLE_BYTES, NEW_BYTES, NUMBER_BYTES, RANGE_BYTES, STREAM_BYTES};
use crate::pipeline::spans::{self, Which};
use crate::pipeline::time_bases::BASE_BYTES;

/// How the times of a bundle's records become Unix time.
#[derive(Debug, Clone, Copy)]
struct Dating {
    clock: Clock,
    /// The uptime at which its boot is dated.
    dated_at_us: Option<i64>,
    /// Decides once it is known what the collector's clock is worth.
    evidence: Option<Evidence>,
}

impl<D: Disk> Intake<'_, D> {
    /// The bundles of one publish, in order. A publish that finds no room half-way is taken again from
    /// its start: what was taken of it is a repeat then.
    pub(super) fn bundles(&mut self, device: &DeviceId, publish: &[u8]) -> Result<(), Refused> {
        for bundle in Bundles::new(publish) {
            let Ok(bundle) = bundle else {
                // Its sender sends again when the Ack does not come.
                self.custody.counters.malformed_total += 1;
                return Ok(());
            };
            self.bundle(device, &bundle)?;
        }
        Ok(())
    }

    fn bundle(&mut self, device: &DeviceId, bundle: &Bundle<'_>) -> Result<(), Refused> {
        let head = &bundle.head;
        let whole = SeqRange::new(head.first, head.first + u64::from(bundle.count));
        if !self
            .custody
            .sessions
            .speaks_for(self.conn, device, &head.origin)
        {
            self.reject(head, whole, RejectReason::Forbidden);
            return Ok(());
        }
        let listed = self
            .custody
            .sessions
            .oldest(self.conn, &head.origin, head.lane, head.epoch);
        if listed.is_none() {
            self.reject(head, whole, RejectReason::NotInHello);
            return Ok(());
        }
        let stream = Stream {
            device: head.origin.clone(),
            lane: head.lane,
            epoch: head.epoch,
        };
        if self.custody.streams.ledger().track(&stream).is_none() {
            // There was no room for it at the Hello, or it was let go since.
            let said = (self.conn, head.origin.clone());
            let may_come = self.custody.streams.ledger().has_room(&stream)
                && !self.custody.sessions.waits.contains_key(&said);
            let reason = if may_come {
                RejectReason::NotInHello
            } else {
                RejectReason::NotDurable
            };
            self.reject(head, whole, reason);
            return Ok(());
        }
        let via = (*device != head.origin).then(|| device.clone());
        self.note_witness(device, head);
        let dating = self.dating_of(head);
        let rejects = self.custody.counters.rejects_total;
        for record in bundle.records() {
            match record.seq {
                None if record.frame.kind == Kind::Portion => {}
                None => self.schema(head, &record.frame)?,
                Some(seq) => {
                    self.numbered(head, via.as_ref(), dating, seq, &record)?;
                }
            }
        }
        self.custody.sessions.owe_ack(self.conn, &stream);
        if self.custody.counters.rejects_total > rejects || bundle.count == 0 {
            // Its sender makes something else of what was refused.
            return Ok(());
        }
        self.portions(bundle, &stream)
    }

    /// Takes note of which parts of sources' contents a bundle holds, if all its records are held.
    fn portions(&mut self, bundle: &Bundle<'_>, stream: &Stream) -> Result<(), Refused> {
        let seqs = bundle.head.first..bundle.head.first + u64::from(bundle.count);
        for record in bundle.records() {
            if record.frame.kind != Kind::Portion {
                continue;
            }
            let Ok(portion) = message::decode::<Portion>(record.frame.payload) else {
                self.custody.counters.malformed_total += 1;
                continue;
            };
            let origin = stream.device.clone();
            let head = PortionHead {
                origin: origin.clone(),
                epoch: stream.epoch,
                portion,
            };
            let ledger = self.custody.streams.ledger();
            let track = ledger.track(stream);
            let is_held = |seq| track.is_some_and(|track| track.receiver.data().contains(seq));
            if ledger.portions.knows(&head) || !seqs.clone().all(is_held) {
                continue;
            }
            let left = ledger.portions.left();
            match self.custody.append(&Record::Portion(head), Leaves::Three) {
                // Its records are held all the same.
                Err(Refused::Full) => return Ok(()),
                appended => appended?,
            };
            let left = self.custody.streams.ledger().portions.left() - left;
            if left > 0 {
                self.custody.counters.portions_left_total += left;
                let of = Crowd::Portions;
                self.custody
                    .sessions
                    .put_out(Output::Crowded { origin, of });
            }
        }
        Ok(())
    }

    fn schema(&mut self, head: &BundleHead, frame: &Frame<'_>) -> Result<(), Refused> {
        let mut at = 0;
        let number = headwater_proto::varint::get(frame.payload, &mut at)
            .and_then(|number| u32::try_from(number).ok());
        let (Some(number), Some(bytes)) = (number, frame.payload.get(at..)) else {
            self.custody.counters.malformed_total += 1;
            return Ok(());
        };
        let schema = SchemaHead {
            origin: head.origin.clone(),
            epoch: head.epoch,
            number,
        };
        match self.judge_schema(&schema, bytes) {
            Bound::New => {
                // What is named by its SHA-256 is in the snapshot already.
                let more = NUMBER_BYTES + bytes.len();
                if self.custody.has_state_room(more, NEW_BYTES) {
                    self.append_schema(schema, bytes)?;
                    self.custody.journal.grew(more);
                } else {
                    self.custody.counters.schemas_full_total += 1;
                    self.not_taken(schema, bytes);
                }
            }
            Bound::Full => {
                self.custody.counters.schemas_full_total += 1;
                self.not_taken(schema, bytes);
            }
            Bound::Same => {}
            Bound::Unknown => {
                if let Some(id) = text::referred(bytes) {
                    self.custody.sessions.refer(self.conn, schema, *id);
                }
            }
            // Its batches are then refused as unknown or decoded by what the number first meant.
            Bound::Conflict | Bound::Invalid => {
                self.custody.counters.malformed_total += 1;
                self.not_taken(schema, bytes);
            }
        }
        Ok(())
    }

    /// Judges what a number is to mean, after others have left the book where it has no room.
    fn judge_schema(&mut self, head: &SchemaHead, bytes: &[u8]) -> Bound {
        let judged = self.custody.journal.schemas.judge(head, bytes);
        if judged != Bound::Full {
            return judged;
        }
        for (origin, numbers) in self.custody.journal.schemas.make_room(bytes) {
            self.custody.counters.schemas_left_total += numbers as u64;
            let of = Crowd::Schemas(numbers);
            self.custody
                .sessions
                .put_out(Output::Crowded { origin, of });
        }
        self.custody.journal.measure(self.custody.streams.ledger());
        // What it refers to may have left too.
        self.custody.journal.schemas.judge(head, bytes)
    }

    /// Appends what a schema number means.
    fn append_schema(&mut self, head: SchemaHead, bytes: &[u8]) -> Result<u64, Refused> {
        let told = self.custody.journal.told_as(&head, bytes);
        self.custody
            .append(&Record::Schema(head, &told), Leaves::Three)
    }

    /// A schema is wrong or finds no room.
    fn not_taken(&mut self, schema: SchemaHead, bytes: &[u8]) {
        if text::is_dictionary(bytes) {
            self.custody.sessions.refuse(self.conn, schema);
        }
    }

    /// Whether the number is bound, now that another device may have sent the dictionary it stands for.
    fn knows(&mut self, number: &SchemaHead) -> Result<bool, Refused> {
        if self.custody.journal.schemas.knows(number) {
            return Ok(true);
        }
        let asked = self.custody.sessions.asked(self.conn);
        let Some(id) = asked.and_then(|asked| asked.referred(number)) else {
            return Ok(false);
        };
        let reference = text::refer(&id);
        let more = NUMBER_BYTES + reference.len();
        if self.judge_schema(number, &reference) != Bound::New {
            return Ok(false);
        }
        if !self.custody.has_state_room(more, NEW_BYTES) {
            return Ok(false);
        }
        self.append_schema(number.clone(), &reference)?;
        self.custody.journal.grew(more);
        Ok(true)
    }

    fn numbered(
        &mut self,
        head: &BundleHead,
        via: Option<&DeviceId>,
        dating: Dating,
        seq: u64,
        record: &BundleRecord<'_>,
    ) -> Result<(), Refused> {
        let stream = Stream {
            device: head.origin.clone(),
            lane: head.lane,
            epoch: head.epoch,
        };
        let Dating {
            clock, evidence, ..
        } = dating;
        let clock = match (dating.dated_at_us, spans::times_of(&record.frame)) {
            (Some(dated_at_us), Some(times)) => dating::drifted(clock, dated_at_us, times),
            _ => clock,
        };
        let one = SeqRange::new(seq, seq + 1);
        let mut needs = Needs::default();
        let verdict = match self
            .custody
            .streams
            .ledger()
            .judge(&stream, seq, &record.frame)
        {
            Judgement::Store => {
                match self.admit(head, via, seq, record)? {
                    Admitted::Yes(found) => needs = found,
                    Admitted::Later => return Ok(()),
                    Admitted::No(reason) => {
                        self.reject(head, one, reason);
                        return Ok(());
                    }
                }
                let is_undated = clock.class == TimeClass::Undated && evidence.is_none();
                if is_undated && has_times(record.frame.kind) {
                    self.custody.counters.undated_total += 1;
                }
                Verdict::Store
            }
            Judgement::Repeat => {
                self.custody.counters.repeats_total += 1;
                if sabotage::is(Bug::AckUnsyncedRepeat) {
                    self.ack_at_once(&stream);
                }
                return Ok(());
            }
            Judgement::Conflict => {
                self.custody.counters.identity_conflicts_total += 1;
                self.reject(head, one, RejectReason::Conflict);
                Verdict::Quarantine(Reason::IdentityConflict)
            }
            Judgement::Refuse(reason) => {
                self.reject(head, one, reason);
                return Ok(());
            }
        };
        let samples = needs.samples;
        let schema = needs.schema.map(|number| SchemaHead {
            origin: head.origin.clone(),
            epoch: head.epoch,
            number,
        });
        let mut envelope = BatchHead {
            stream,
            seq,
            verdict,
            at: self.now.wall,
            clock,
            via: via.cloned(),
            rules: self.custody.journal.rules_id(),
            around: None,
            evidence,
        };
        envelope.around = around(self.custody.streams.ledger(), &envelope, &record.frame);
        // A gap makes room at its sender, so it may use the reserve.
        let leaves = if matches!(record.frame.kind, Kind::Gap | Kind::EpochEnd) {
            Leaves::Two
        } else {
            Leaves::Three
        };
        let record_of = Record::Batch(envelope, record.bytes);
        self.custody
            .append_with(schema.as_ref(), &record_of, leaves)?;
        if verdict == Verdict::Store {
            self.custody.counters.records_stored_total += 1;
            self.custody.counters.record_bytes_stored_total += record.bytes.len() as u64;
            self.custody.counters.samples_stored_total += u64::from(samples);
        }
        Ok(())
    }

    /// Whether the ledger knows a stream or may take it for new; if that is not known, it is looked up meanwhile.
    fn is_known_or_new(&mut self, stream: &Stream) -> bool {
        let streams = &mut self.custody.streams;
        if streams.ledger().track(stream).is_some() || streams.look_ups().is_new(stream) {
            return true;
        }
        streams.look_ups().name(stream);
        self.custody.look_up();
        false
    }

    /// Whether a record that was not stored before may be: what it names, what it adds to the snapshot,
    /// the schema that it needs.
    fn admit(
        &mut self,
        head: &BundleHead,
        via: Option<&DeviceId>,
        seq: u64,
        record: &BundleRecord<'_>,
    ) -> Result<Admitted, Refused> {
        let sender = via.unwrap_or(&head.origin);
        if let Some(named) = ledger::named_by(&record.frame) {
            if !self
                .custody
                .sessions
                .speaks_for(self.conn, sender, &named.device)
            {
                return Ok(Admitted::No(RejectReason::Forbidden));
            }
            let more = STREAM_BYTES + RANGE_BYTES;
            let fits = self.custody.streams.ledger().has_room(&named)
                && self.custody.has_state_room(more, HOLE_BYTES);
            if !fits || !self.is_known_or_new(&named) {
                return Ok(Admitted::No(RejectReason::NotDurable));
            }
            self.custody.journal.grew(more);
        }
        if record.frame.kind == Kind::TimeBase {
            let base = message::decode::<TimeBase>(record.frame.payload).ok();
            if base.is_some_and(|base| {
                !self
                    .custody
                    .sessions
                    .speaks_for(self.conn, sender, &base.origin)
            }) {
                return Ok(Admitted::No(RejectReason::Forbidden));
            }
            if !self.custody.has_state_room(BASE_BYTES, NEW_BYTES) {
                return Ok(Admitted::No(RejectReason::NotDurable));
            }
            self.custody.journal.grew(BASE_BYTES);
        }
        let stream = Stream {
            device: head.origin.clone(),
            lane: head.lane,
            epoch: head.epoch,
        };
        let track = self.custody.streams.ledger().track(&stream);
        let opens_hole = track.is_some_and(|track| track.opens_hole(seq));
        if opens_hole {
            let ledger = self.custody.streams.ledger();
            if !self.custody.journal.has_hole_room(ledger, &head.origin) {
                return Ok(Admitted::No(RejectReason::TooManyHoles));
            }
            self.custody.journal.grew(RANGE_BYTES);
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
        if self.knows(&number)? {
            return Ok(Admitted::Yes(needs));
        }
        let asked = self.custody.sessions.asked(self.conn);
        if asked.is_some_and(|asked| asked.is_refused(&number)) {
            return Ok(Admitted::No(RejectReason::Unsupported));
        }
        let has_asked = self
            .custody
            .sessions
            .ask(self.conn, head.lane, number, self.now);
        self.custody.counters.schema_requests_total += u64::from(has_asked);
        Ok(Admitted::Later)
    }

    /// A sender with a synchronised clock says what time it is: for itself alone.
    fn note_witness(&mut self, device: &DeviceId, head: &BundleHead) {
        if let Some(wall) = head.wall.filter(|_| head.stamps.synced)
            && *device == head.origin
        {
            clock::heard(self.custody, device, wall.time, self.now.mono);
            // The clock may be in doubt by that.
            self.now = self.custody.clock.dated(self.now);
        }
    }

    /// How the times of a bundle's records become Unix time.
    fn dating_of(&mut self, head: &BundleHead) -> Dating {
        let in_doubt = self.custody.clock.doubt().is_some();
        let Some(sightings) = self.custody.sessions.sightings(self.conn, &head.origin) else {
            return Dating {
                clock: Clock::UNDATED,
                dated_at_us: None,
                evidence: None,
            };
        };
        if let Some(uptime_ms) = head.uptime_ms {
            sightings.note(head.boot, uptime_ms, head.wall, self.now);
        }
        let time_base = self
            .custody
            .streams
            .ledger()
            .time_bases()
            .get(&head.origin, head.boot);
        let evidence = dating::evidence(head, sightings, self.now).filter(|_| in_doubt);
        let clock = match &evidence {
            // The tie of this stretch decides.
            Some(evidence) => dating::believed(evidence),
            None => dating::date(head, sightings, time_base, self.now),
        };
        Dating {
            clock: clock.unwrap_or(Clock::UNDATED),
            dated_at_us: dating::dated_at_us(head, time_base),
            evidence,
        }
    }

    /// Acknowledges what may not be durable: only to see that a test finds it.
    fn ack_at_once(&mut self, stream: &Stream) {
        let Stream {
            device,
            lane,
            epoch,
        } = stream;
        let oldest = self
            .custody
            .sessions
            .oldest(self.conn, device, *lane, *epoch);
        let mark = oldest.and_then(|oldest| self.custody.streams.mark(stream, oldest));
        let custody = &mut *self.custody;
        let terms = clock::terms(custody, self.now);
        self.custody
            .sessions
            .ack(self.conn, device, mark.as_slice(), terms);
    }

    fn reject(&mut self, head: &BundleHead, range: SeqRange, reason: RejectReason) {
        if range.is_empty() {
            return;
        }
        self.custody.counters.rejects_total += 1;
        let (origin, lane, epoch) = (head.origin.clone(), head.lane, head.epoch);
        self.custody.sessions.send(
            self.conn,
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
    let samples = if frame.kind == Kind::Batch {
        BatchHeader::peek(frame.payload).map_or(0, |batch| batch.samples)
    } else if frame.kind == Kind::Refused {
        refused::Refused::decode(frame.payload).map_or(0, |parts| parts.count)
    } else {
        0
    };
    Needs {
        samples,
        schema: schemas::number_in(frame),
    }
}

/// When rows were made that a record names as missing, or that nobody could read with it; `None` where its frame
/// says that.
fn around(ledger: &Ledger, head: &BatchHead, frame: &Frame<'_>) -> Option<Span> {
    let (at, one) = (head.at, SeqRange::new(head.seq, head.seq + 1));
    if frame.kind == Kind::Gap
        && let Ok(gap) = message::decode::<Gap>(frame.payload)
    {
        let is_whole = gap.t_first.is_some() && gap.t_last.is_some();
        let stream = Stream {
            device: gap.origin,
            lane: gap.lane,
            epoch: gap.epoch,
        };
        let which = gap.seqs.map_or(Which::Any, Which::Numbers);
        return (!is_whole).then(|| Around(ledger).span(&stream, which, at));
    }
    let is_read = if frame.kind == Kind::EpochEnd {
        message::decode::<EpochEnd>(frame.payload).is_ok()
    } else if frame.kind == Kind::TimeBase {
        message::decode::<TimeBase>(frame.payload).is_ok()
    } else {
        spans::dated_times_of(frame, head.clock).is_some()
    };
    (!is_read).then(|| Around(ledger).span(&head.stream, Which::Numbers(one), at))
}

/// Whether a record's own times need its bundle's clock.
const fn has_times(kind: Kind) -> bool {
    matches!(kind, Kind::Batch | Kind::Text | Kind::Refused)
}

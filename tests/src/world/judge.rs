//! Core: the judge of a run: what the lake, the other sinks and the senders hold against each other.

use headwater_proto::delivery::Ranges;
use headwater_proto::ids::Stream;

use super::behind::Wired;
use super::check::{self, Known};
use super::copy::COPY;
use super::course::Course;
use super::fleet::Fleet;
use super::found::{self, Found, Stated};
use super::generator::Key;
use super::seen::Summary;
use super::site::Home;
use super::stream::STREAM;

/// Judges a run that has come to rest; what is wrong stands in its faults.
pub(super) fn judge(fleet: &mut Fleet, site: &mut Home, course: &mut Course) -> Summary {
    let has_clones = course.plan.disturbances > 0;
    check::check_audit(&site.collector.store, has_clones, &mut course.faults);
    for device in &mut fleet.devices {
        device.note_counters(&mut course.seen);
    }
    site.collector.note_counters(&mut course.seen);
    let found = match found::read(&site.collector.store, &fleet.made) {
        Ok(found) => found,
        Err(fault) => {
            let fault = format!("the lake cannot be read: {fault}");
            course.faults.push(fault);
            Found::default()
        }
    };
    check::check_spans(&found, &mut course.faults);
    course.seen.lines += found.lines;
    course.seen.dictionaries += found.dictionaries;
    course.seen.checkpoints += found.checkpoints;
    for untimely in &found.untimely {
        let is_undated = untimely.reason == "undated";
        course.seen.undated += u64::from(is_undated);
        course.seen.untimely += u64::from(!is_undated);
    }
    let is_dated = |stated: &&Stated| stated.class == "offset";
    course.seen.dated += found.stated.iter().filter(is_dated).count() as u64;
    judge_fleet(&found, fleet, site, course);
    if site.has_two_times() {
        let is_known =
            |fault: &String| fault.starts_with("audit: ") || fault.contains(" is in the lake ");
        course.faults.retain(|fault| !is_known(fault));
    }
    // Agents have let go of what the journal took: of a gap that rots in it, that an epoch ended badly is told by nobody.
    if site.rotten && course.plan.ends_at_journal {
        let is_unnamed_stop = |fault: &String| {
            fault.contains("verdict: Unexplained") && fault.contains(" unexplained: 0,")
        };
        course.faults.retain(|fault| !is_unnamed_stop(fault));
    }
    judge_sinks(&found, site, course);
    for plain in &fleet.plain {
        let (made, had) = (plain.made(), &plain.acknowledged);
        let (lost, faults) = ((site.lost_disk, site.rotten), &mut course.faults);
        check::check_plain(&found, &plain.name, made, had, lost, faults);
    }
    judge_nodes(&found, fleet, site, course);
    let there = |key: &&_| found.readings.contains_key(*key);
    Summary {
        made: fleet.made.readings().len() as u64,
        found: fleet.made.readings().keys().filter(there).count() as u64,
        deaths: course.deaths,
        elapsed_ms: course.now.mono.0,
        seen: course.seen,
    }
}

/// What the run knows of each name.
fn known(fleet: &Fleet, site: &Home, ends_at_journal: bool) -> Vec<Known> {
    let mut known: Vec<Known> = Vec::new();
    for device in &fleet.devices {
        let name = device.id.as_str();
        match known.iter_mut().find(|known| known.name == name) {
            Some(known) => {
                known.disturbed |= device.disturbed;
                known.evicted |= device.has_evicted();
                known.forgotten |= device.forgotten;
                known.unmarked |= device.unmarked;
                known.stepped |= device.stepped;
                known.is_wild |= device.is_wild;
                known.lied |= device.lied;
            }
            None => known.push(Known {
                name: name.to_owned(),
                disturbed: device.disturbed,
                forgotten: device.forgotten,
                unmarked: device.unmarked,
                stepped: device.stepped,
                is_wild: device.is_wild,
                lied: device.lied,
                has_loose: false,
                evicted: device.has_evicted(),
                unnamed: false,
            }),
        }
    }
    let is_forgetful = site.is_forgetful();
    for known in &mut known {
        // What the journal cannot give back is named, or asked for again.
        known.evicted |= site.rotten || site.was_older;
        known.has_loose = known.is_wild || site.was_older;
        // But of a device that held readings in memory alone, the journal's word that it did may
        // be what rotted or went with its disk: then nobody knows of them.
        let mut devices = fleet.devices.iter();
        let in_memory = devices.any(|d| d.id.as_str() == known.name && d.not_durable() > 0);
        known.forgotten |= in_memory && is_forgetful;
        // What agents were told to forget went with the journal.
        known.unnamed = ends_at_journal && is_forgetful || site.healed;
    }
    known
}

/// Judges what the agents sent, of their own and of nodes.
fn judge_fleet(found: &Found, fleet: &mut Fleet, site: &Home, course: &mut Course) {
    let mut known = known(fleet, site, course.plan.ends_at_journal);
    known.extend(known_nodes(fleet, site, course.plan.ends_at_journal));
    let was_lent = |key: &Key| fleet.devices.iter().any(|device| device.was_lent(key));
    check::check_rows(found, &fleet.made, &known, was_lent, &mut course.faults);
    check::check_verdicts(found, &known, course.plan.rules_change, &mut course.faults);
    let is_right = !site.collector.was_set;
    check::check_abandoned(found, &known, is_right, &mut course.faults);
    if is_right {
        let had_doubt = course.seen.wrong_starts > 0;
        check::check_times(found, &fleet.made, (&known, had_doubt), &mut course.faults);
    }
    for device in &mut fleet.devices {
        course.faults.append(&mut device.broken);
        course.seen.not_durable += device.not_durable();
        let name = device.id.as_str();
        if let Some(known) = known.iter().find(|known| known.name == name) {
            check::check_durable(found, device.durable(), known, &mut course.faults);
        }
    }
}

/// What the run knows of the nodes behind agents. Their clocks are right. A record of theirs has one identity
/// for ever, so that copies of an agent's disk double nothing.
fn known_nodes(fleet: &Fleet, site: &Home, ends_at_journal: bool) -> Vec<Known> {
    let known = |node: &Wired| Known {
        name: node.id().as_str().to_owned(),
        disturbed: false,
        forgotten: node.agents().any(|place| fleet.devices[place].forgotten),
        unmarked: false,
        stepped: false,
        is_wild: false,
        lied: false,
        has_loose: false,
        evicted: true,
        unnamed: ends_at_journal && site.is_forgetful(),
    };
    fleet.behind.nodes().iter().map(known).collect()
}

/// Judges that nothing is missing of what nodes behind agents handed over.
fn judge_nodes(found: &Found, fleet: &Fleet, site: &Home, course: &mut Course) {
    let known = known_nodes(fleet, site, course.plan.ends_at_journal);
    let faults = &mut course.faults;
    for (node, known) in fleet.behind.nodes().iter().zip(&known) {
        check::check_node(found, node.records(), known, faults);
        if node.refused() > 0 {
            let (name, refused) = (&known.name, node.refused());
            faults.push(format!("{refused} records of {name} were refused for good"));
        }
        for key in node.records().values().flatten() {
            course.seen.nodes_made += 1;
            course.seen.nodes_found += u64::from(found.readings.contains_key(key));
        }
    }
}

/// Judges the sinks beside the lake.
fn judge_sinks(found: &Found, site: &Home, course: &mut Course) {
    let (plan, seen, faults) = (&course.plan, &mut course.seen, &mut course.faults);
    let collector = &site.collector;
    let (copies, service) = (collector.copies.shelf(), collector.service.shelf());
    seen.copied += copies.taken;
    seen.copies_failed += copies.failed;
    seen.blocks += copies.blocks;
    seen.copies_refused += copies.refused.len() as u64;
    seen.batches += service.batches;
    seen.batches_repeated += service.repeats;
    seen.batches_remade += service.remade;
    seen.batches_failed += service.failed;
    seen.items_refused += service.refused.len() as u64;
    let until = collector.taken_out.as_ref();
    // After a takeover nobody knows what the journal of the one that was stopped had.
    let was_taken_over = plan.takeovers > 0 && site.lost_disk;
    // What named what an optional sink lacks may be gone from the journal, and with the lake from there too.
    let is_judged = |required: Option<bool>| {
        required.is_some_and(|required| required || !site.was_older) && !was_taken_over
    };
    let comes_again = site.lost_disk || site.rotten;
    if is_judged(plan.copy) {
        let each = |(stream, ranges): (&Stream, &Ranges<{ usize::MAX }>)| {
            let numbers = ranges.iter().flat_map(|range| range.first..range.next);
            numbers.map(|seq| (stream.clone(), seq)).collect::<Vec<_>>()
        };
        let refused = copies.refused.iter().flat_map(each).collect();
        let has = (&copies.given, &copies.undecodable, &refused);
        check::check_sink(found, COPY, has, (until, comes_again), faults);
    }
    if is_judged(plan.stream) {
        let has = (&service.given, &service.undecodable, &service.refused);
        check::check_sink(found, STREAM, has, (None, comes_again), faults);
    }
    // Of a batch that cannot be made again the service refused nothing.
    if plan.stream.is_some() && service.broken == 0 {
        check::check_refused(found, &service.refused, faults);
    }
    // A journal that is gone or rots takes plans with it, and an old copy uses positions once more.
    let is_steady = !site.lost_disk && !site.rotten;
    if plan.stream.is_some() && is_steady {
        faults.extend(service.faults.iter().cloned());
        let lacks = found.lacks.get(STREAM);
        let is_behind = lacks.is_some_and(|lacks| lacks.left_behind > 0);
        if service.broken > 0 && !is_behind {
            faults.push("a batch could not be made again from its plan".to_owned());
        }
    }
    // A journal that rots gives no copy of what a sink refused of it, and letters go with their disk.
    if !site.rotten && !site.lost_disk {
        seen.dead_letters += collector.letters.check(found, faults);
    }
    let had_room = collector.most_bytes <= plan.journal_bytes / 2 && !collector.was_stalled;
    for (sink, lacks) in &found.lacks {
        seen.left_behind += lacks.left_behind;
        let is_out = sink == COPY && until.is_some();
        if lacks.left_behind > 0 && !is_out && had_room {
            faults.push(format!(
                "sink {sink} was left behind, though the journal had room"
            ));
        }
    }
}

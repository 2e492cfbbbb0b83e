//! Core: which fault meets which call. What is chosen follows from the seed and from how many calls a
//! rule has met before, so calls that come in the same order meet the same faults.

use std::time::Duration;

use super::bits::{chance, draw, shard_at};
use super::call::{Call, Service};
use super::faults::{Fault, Match, When};
use super::flow::Buckets;
use super::items::{Failure, Item, THROUGHPUT_EXCEEDED};
use crate::dice::Dice;

/// How the call ends for the client.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum End {
    /// With the answer.
    #[default]
    Answer,
    /// See [`Fault::DropBefore`].
    DropBefore,
    /// See [`Fault::DropAfter`].
    DropAfter,
    /// See [`Fault::Late`].
    Late(Duration),
    /// See [`Fault::Hang`].
    Hang(Duration),
    /// See [`Fault::HalfAnswer`].
    HalfAnswer,
}

/// All that happens to one call.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// How it ends.
    pub end: End,
    /// An answer in place of the service's.
    pub refusal: Option<(u16, Failure)>,
    /// For each item, why it is not forwarded.
    pub failures: Vec<Option<Failure>>,
    /// Chooses the entry that the answer lacks.
    pub shorten: Option<u64>,
    /// How long the answer is held back.
    pub delay: Duration,
    /// By how many seconds its date is off.
    pub skew_s: Option<i64>,
    /// Names of the faults.
    pub injected: Vec<&'static str>,
}

#[derive(Debug, Clone)]
struct Rule {
    matches: Match,
    when: When,
    fault: Fault,
    /// Calls that it met.
    met: u64,
    buckets: Buckets,
}

impl Rule {
    /// Meets a call: whether the fault happens. `mark`: seed and number of the rule.
    fn happens(&mut self, call: &Call, mark: u64) -> bool {
        if !self.matches.fits(call) {
            return false;
        }
        self.met += 1;
        match self.when {
            When::Always => true,
            When::Probability(probability) => chance(probability, &[mark, self.met]),
            When::Nth(number) => self.met == number,
            When::Next(number) => self.met <= number,
        }
    }
}

/// The faults of a test.
#[derive(Debug, Clone)]
pub struct Script {
    seed: u64,
    rules: Vec<Rule>,
}

impl Script {
    /// No faults yet.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self {
            seed,
            rules: Vec::new(),
        }
    }

    /// No faults yet, and a seed from the test's dice.
    #[must_use]
    pub fn of(dice: &mut Dice) -> Self {
        Self::new(dice.below(u64::MAX))
    }

    /// Adds a rule behind the others.
    #[must_use]
    pub fn with(mut self, matches: Match, when: When, fault: Fault) -> Self {
        self.rules.push(Rule {
            matches,
            when,
            fault,
            met: 0,
            buckets: Buckets::default(),
        });
        self
    }

    /// How fast the call passes, in bytes a second; asked once, before the body is read.
    pub fn bandwidth(&mut self, call: &Call) -> Option<u64> {
        let mut found = None;
        for (mark, rule) in marked(self.seed, &mut self.rules) {
            if let Fault::Bandwidth(bytes_per_s) = rule.fault
                && rule.happens(call, mark)
            {
                found = found.or(Some(bytes_per_s));
            }
        }
        found
    }

    /// Chooses all other faults of a call. `now`: on any clock that does not run backwards.
    pub fn decide(&mut self, call: &Call, items: &[Item], now: Duration) -> Plan {
        let mut plan = Plan {
            failures: vec![None; items.len()],
            ..Plan::default()
        };
        for (mark, rule) in marked(self.seed, &mut self.rules) {
            if matches!(rule.fault, Fault::Bandwidth(_)) || !rule.happens(call, mark) {
                continue;
            }
            let marks = [mark, rule.met];
            let counts = match &rule.fault {
                Fault::SomeFail { probability, code } => {
                    fail_items(&mut plan.failures, items, |number, _| {
                        let fails = chance(*probability, &[mark, rule.met, number]);
                        fails.then(|| Failure::new(code, "injected by a test"))
                    })
                }
                Fault::AllFail { code } => fail_items(&mut plan.failures, items, |_, _| {
                    Some(Failure::new(code, "injected by a test"))
                }),
                Fault::Throttle { shards, rates } => {
                    let buckets = &mut rule.buckets;
                    fail_items(&mut plan.failures, items, |_, item| {
                        let of_table = call.service == Service::DynamoDb;
                        let place = if of_table { &item.key } else { &call.key };
                        let shard = shard_at(item.hash, *shards);
                        let fits = buckets.take(place, shard, item.bytes, *rates, now);
                        (!fits).then(|| throttled(call, shard))
                    })
                }
                Fault::WrongLength if items.is_empty() => false,
                Fault::WrongLength => set(&mut plan.shorten, draw(&marks)),
                Fault::Status { status, failure } => {
                    set(&mut plan.refusal, (*status, failure.clone()))
                }
                Fault::SkewedDate(skew_s) => set(&mut plan.skew_s, *skew_s),
                Fault::Delay(delay) => {
                    plan.delay = plan.delay.max(*delay);
                    true
                }
                Fault::DropBefore => plan.ends(End::DropBefore),
                Fault::DropAfter => plan.ends(End::DropAfter),
                Fault::Late(delay) => plan.ends(End::Late(*delay)),
                Fault::Hang(time) => plan.ends(End::Hang(*time)),
                Fault::HalfAnswer => plan.ends(End::HalfAnswer),
                Fault::Bandwidth(_) => false,
            };
            if counts {
                plan.injected.push(rule.fault.name());
            }
        }
        plan
    }
}

impl Plan {
    fn ends(&mut self, end: End) -> bool {
        let is_first = self.end == End::Answer;
        if is_first {
            self.end = end;
        }
        is_first
    }
}

fn set<T>(place: &mut Option<T>, value: T) -> bool {
    let is_first = place.is_none();
    place.get_or_insert(value);
    is_first
}

fn marked(seed: u64, rules: &mut [Rule]) -> impl Iterator<Item = (u64, &mut Rule)> {
    (0_u64..)
        .zip(rules)
        .map(move |(number, rule)| (draw(&[seed, number]), rule))
}

/// Lets each item fail for which `why` has a reason and that does not fail yet; whether there is one.
fn fail_items(
    failures: &mut [Option<Failure>],
    items: &[Item],
    mut why: impl FnMut(u64, &Item) -> Option<Failure>,
) -> bool {
    let mut any = false;
    for ((number, item), failure) in (0_u64..).zip(items).zip(failures) {
        if failure.is_none() {
            *failure = why(number, item);
            any |= failure.is_some();
        }
    }
    any
}

fn throttled(call: &Call, shard: u64) -> Failure {
    match call.service {
        Service::Firehose => Failure::new("ServiceUnavailableException", "Slow down."),
        Service::Kinesis => {
            let text = format!(
                "Rate exceeded for shard shardId-{shard:012} in stream {}",
                call.key
            );
            Failure::new(THROUGHPUT_EXCEEDED, text + " under account 000000000000.")
        }
        Service::DynamoDb | Service::S3 | Service::Other => Failure::new(
            THROUGHPUT_EXCEEDED,
            "The level of configured provisioned throughput was exceeded.",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::call::{Condition, Operation};
    use super::super::flow::Rates;
    use super::*;

    const NOW: Duration = Duration::ZERO;

    fn call(service: Service, operation: Operation, key: &str) -> Call {
        Call {
            service,
            operation,
            name: format!("{operation:?}"),
            condition: Condition::None,
            bucket: String::new(),
            key: key.to_owned(),
            is_head: false,
        }
    }

    fn put(key: &str) -> Call {
        call(Service::S3, Operation::PutObject, key)
    }

    fn items(hashes: &[u128]) -> Vec<Item> {
        let item = |hash: &u128| Item {
            key: String::new(),
            hash: *hash,
            bytes: 10,
            identity: 0,
        };
        hashes.iter().map(item).collect()
    }

    fn codes(plan: &Plan) -> Vec<Option<&str>> {
        plan.failures
            .iter()
            .map(|failure| failure.as_ref().map(|f| f.code.as_str()))
            .collect()
    }

    #[test]
    fn the_nth_and_the_next_are_counted_over_the_calls_that_match() {
        let nth = |when| {
            let rule = Match::operation(Operation::PutObject).key("a");
            let mut script = Script::new(1).with(rule, when, Fault::DropBefore);
            ["a", "b", "a", "a"]
                .map(|key| script.decide(&put(key), &[], NOW).end == End::DropBefore)
        };
        assert_eq!(nth(When::Nth(2)), [false, false, true, false]);
        assert_eq!(nth(When::Next(2)), [true, false, true, false]);
        assert_eq!(nth(When::Always), [true, false, true, true]);
        assert_eq!(nth(When::Probability(0.0)), [false; 4]);
    }

    #[test]
    fn the_same_seed_gives_the_same_faults_and_another_one_others() {
        let run = |seed| {
            let fail = Fault::SomeFail {
                probability: 0.5,
                code: "InternalFailure".to_owned(),
            };
            let mut script = Script::new(seed)
                .with(Match::all(), When::Probability(0.3), Fault::DropAfter)
                .with(Match::all(), When::Probability(0.5), fail);
            let items = items(&[0; 8]);
            (0..50)
                .map(|_| script.decide(&put("a"), &items, NOW))
                .collect::<Vec<_>>()
        };
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
        let dropped = run(1)
            .iter()
            .filter(|plan| plan.end == End::DropAfter)
            .count();
        assert!((5..25).contains(&dropped), "{dropped}");
    }

    #[test]
    fn calls_of_others_do_not_change_what_a_rule_does() {
        let rule = || Match::operation(Operation::PutObject);
        let run = |between: usize| {
            let mut script = Script::new(3).with(rule(), When::Probability(0.5), Fault::DropAfter);
            let mut ends = Vec::new();
            for _ in 0..40 {
                for _ in 0..between {
                    script.decide(&call(Service::S3, Operation::GetObject, "a"), &[], NOW);
                }
                ends.push(script.decide(&put("a"), &[], NOW).end);
            }
            ends
        };
        assert_eq!(run(0), run(3));
    }

    #[test]
    fn faults_of_several_rules_add_up_and_of_one_row_the_first_counts() {
        let all = |script: Script, fault| script.with(Match::all(), When::Always, fault);
        let mut script = Script::new(1);
        let second = Duration::from_secs(1);
        for fault in [
            Fault::DropAfter,
            Fault::Hang(second),
            Fault::status(503, "SlowDown"),
            Fault::status(500, "InternalError"),
            Fault::Delay(second),
            Fault::SkewedDate(-1800),
            Fault::WrongLength,
        ] {
            script = all(script, fault);
        }
        let plan = script.decide(&put("a"), &items(&[0]), NOW);
        assert_eq!(
            (plan.end, plan.delay, plan.skew_s),
            (End::DropAfter, second, Some(-1800))
        );
        assert_eq!(
            plan.refusal,
            Some((503, Failure::new("SlowDown", "injected by a test")))
        );
        assert!(plan.shorten.is_some());
        assert_eq!(
            plan.injected,
            [
                "drop_after",
                "status",
                "delay",
                "skewed_date",
                "wrong_length"
            ]
        );
        assert!(script.decide(&put("a"), &[], NOW).shorten.is_none());
    }

    #[test]
    fn a_throttled_shard_leaves_the_others_alone_and_recovers() {
        let call = call(Service::Kinesis, Operation::PutRecords, "s");
        let rates = Rates {
            bytes_per_s: 20.0,
            records_per_s: 100.0,
        };
        let throttle = Fault::Throttle { shards: 2, rates };
        let mut script = Script::new(1).with(Match::all(), When::Always, throttle);
        let items = items(&[0, u128::MAX, 0, 0]);
        let full = Some(THROUGHPUT_EXCEEDED);
        let plan = script.decide(&call, &items, NOW);
        assert_eq!(codes(&plan), [None, None, None, full]);
        assert_eq!(plan.injected, ["throttle"]);
        let message = plan.failures[3]
            .as_ref()
            .map(|failure| failure.message.as_str());
        assert!(
            message
                .unwrap()
                .contains("shardId-000000000000 in stream s ")
        );
        assert_eq!(codes(&script.decide(&call, &items[2..], NOW)), [full, full]);
        assert_eq!(
            codes(&script.decide(&call, &items[2..], NOW + Duration::from_secs(1))),
            [None, None]
        );
        let firehose = Call {
            service: Service::Firehose,
            ..call
        };
        let plan = script.decide(&firehose, &items[2..], NOW + Duration::from_secs(1));
        assert_eq!(codes(&plan), [Some("ServiceUnavailableException"); 2]);
    }

    #[test]
    fn all_items_fail_or_some_and_an_earlier_rules_failure_stays() {
        let fail = |probability| Fault::SomeFail {
            probability,
            code: "A".to_owned(),
        };
        let all = Fault::AllFail {
            code: "B".to_owned(),
        };
        let mut script = Script::new(5)
            .with(Match::all(), When::Always, fail(0.5))
            .with(Match::all(), When::Nth(2), all);
        let items = items(&[0; 100]);
        let count = |plan: &Plan, code| {
            codes(plan)
                .iter()
                .filter(|found| **found == Some(code))
                .count()
        };
        let first = script.decide(&put("a"), &items, NOW);
        assert!(
            (30..70).contains(&count(&first, "A")),
            "{}",
            count(&first, "A")
        );
        assert_eq!(count(&first, "B"), 0);
        let second = script.decide(&put("a"), &items, NOW);
        assert_eq!(count(&second, "A") + count(&second, "B"), 100);
        assert!(count(&second, "A") > 0);
        assert_ne!(
            codes(&first)
                .iter()
                .map(Option::is_some)
                .collect::<Vec<_>>(),
            [true; 100]
        );
    }

    #[test]
    fn bandwidth_is_asked_for_by_itself_and_is_counted_by_itself() {
        let mut script = Script::new(1)
            .with(Match::all(), When::Nth(1), Fault::Bandwidth(65_536))
            .with(Match::all(), When::Always, Fault::Bandwidth(10));
        assert_eq!(script.bandwidth(&put("a")), Some(65_536));
        assert!(script.decide(&put("a"), &[], NOW).injected.is_empty());
        assert_eq!(script.bandwidth(&put("a")), Some(10));
    }
}

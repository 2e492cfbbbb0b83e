//! Each fault of a cloud in front of each sink, one after the other, while a fleet sends: the lake has every row once,
//! the streams have every row, and what comes twice is the same.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use headwater_tests::cloud::{
    Condition, Fault, Match, Operation, Proxy, Rates, Script, Service, When,
};
use headwater_tests::dice::Dice;
use headwater_tests::process::wait_for;
use headwater_tests::signals::Signals;
use headwater_tests::site::{Agent, Site, at_a_site};
use serde_json::Value as Json;

use crate::s3::{LAKE, place};
use crate::streams::{CREDENTIALS, Cloud, SINKS, expect_no_lag, script, sinks};

const ROWS: u64 = 8_000;
/// Microseconds between two rows.
const PERIOD_US: u32 = 15_000;
/// Beyond what the collector waits for an answer.
const TOO_LONG: Duration = Duration::from_secs(12);

/// A fault of a service, and how often it is to be seen before the next.
struct Case {
    service: Service,
    operation: Match,
    when: When,
    fault: Fault,
    times: u64,
}

/// Faults that any service may have.
fn common() -> Vec<(When, Fault, u64)> {
    let often = When::Probability(0.6);
    let soon = Duration::from_millis(1_500);
    vec![
        (often, Fault::DropBefore, 2),
        (often, Fault::DropAfter, 2),
        (often, Fault::HalfAnswer, 2),
        (often, Fault::Late(soon), 2),
        (often, Fault::Delay(soon), 1),
        (often, Fault::SkewedDate(-1_200), 1),
        (When::Next(1), Fault::Hang(TOO_LONG), 1),
        (When::Next(1), Fault::status(500, "InternalError"), 1),
    ]
}

impl Case {
    fn new(service: Service, operation: &Match, when: When, fault: Fault, times: u64) -> Self {
        Self {
            service,
            operation: operation.clone(),
            when,
            fault,
            times,
        }
    }
}

fn cases_of_streams() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |service, operation: &Match, when, fault, times| {
        cases.push(Case::new(service, operation, when, fault, times));
    };
    let streams = [
        (
            Service::Kinesis,
            Operation::PutRecords,
            "ProvisionedThroughputExceededException",
        ),
        (
            Service::Firehose,
            Operation::PutRecordBatch,
            "ServiceUnavailableException",
        ),
    ];
    for (service, operation, throttled) in streams {
        let calls = Match::operation(operation);
        for (when, fault, times) in common() {
            add(service, &calls, when, fault, times);
        }
        let often = When::Probability(0.6);
        let some = Fault::SomeFail {
            probability: 0.5,
            code: "InternalFailure".to_owned(),
        };
        let all = Fault::AllFail {
            code: throttled.to_owned(),
        };
        let rates = Rates {
            bytes_per_s: 2_000.0,
            records_per_s: 2.0,
        };
        add(service, &calls, often, some, 2);
        add(service, &calls, often, all, 2);
        add(service, &calls, often, Fault::WrongLength, 2);
        add(
            service,
            &calls,
            When::Always,
            Fault::Throttle { shards: 1, rates },
            2,
        );
        add(
            service,
            &calls,
            When::Next(1),
            Fault::status(400, "NeverHeardOf"),
            1,
        );
    }
    cases
}

fn cases_of_s3() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |service, operation: &Match, when, fault, times| {
        cases.push(Case::new(service, operation, when, fault, times));
    };
    let s3 = Match::service(Service::S3);
    for (when, fault, times) in common() {
        add(Service::S3, &s3, when, fault, times);
    }
    let puts = |condition| Match::operation(Operation::PutObject).under(condition);
    let conflict = || Fault::status(409, "ConditionalRequestConflict");
    add(
        Service::S3,
        &puts(Condition::IfNoneMatch),
        When::Next(2),
        conflict(),
        2,
    );
    add(
        Service::S3,
        &puts(Condition::IfMatch),
        When::Next(2),
        conflict(),
        2,
    );
    add(
        Service::S3,
        &puts(Condition::IfNoneMatch),
        When::Next(2),
        Fault::DropAfter,
        2,
    );
    add(
        Service::S3,
        &puts(Condition::IfMatch),
        When::Next(2),
        Fault::DropAfter,
        2,
    );
    add(
        Service::S3,
        &s3,
        When::Probability(0.3),
        Fault::status(503, "SlowDown"),
        2,
    );
    cases
}

/// Of a service on this machine.
pub(crate) fn address_of(url: &str) -> Result<SocketAddr> {
    let address = url.strip_prefix("http://").context("an address")?;
    Ok(address.parse()?)
}

/// One more device that sends.
fn more(site: &Site, agents: &mut Vec<Agent>, signals: &mut Vec<Signals>) -> Result<()> {
    let one = Signals::live(&format!("pump-{}", agents.len() + 1), ROWS, PERIOD_US);
    agents.push(site.generator(&one)?);
    signals.push(one);
    Ok(())
}

/// Whether the device that came last has sent half of its rows: a case takes far less than the rest.
fn is_nearly_done(agents: &[Agent]) -> bool {
    let status = agents.last().and_then(Agent::status);
    status.is_some_and(|status| status["readings"].as_u64() > Some(ROWS / 2))
}

#[test]
fn each_fault_of_each_service_loses_nothing() {
    at_a_site(|site| {
        let mut cloud = Cloud::start(site.folder())?;
        let mut dice = Dice::roll();
        let proxy = Proxy::start(address_of(&cloud.url)?, Script::of(&mut dice))?;
        site.place = Some(place(site, &proxy.url(), LAKE));
        site.settings = sinks(&proxy.url());
        site.wrapper = CREDENTIALS.map(str::to_owned).to_vec();
        site.start_collector()?;
        let mut signals = Vec::new();
        let mut agents = Vec::new();
        more(site, &mut agents, &mut signals)?;
        more(site, &mut agents, &mut signals)?;
        agents[0].wait_for_new_readings()?;
        let mut table = String::new();
        for case in cases_of_streams().into_iter().chain(cases_of_s3()) {
            let name = case.fault.name();
            let seen = || proxy.ledger().faults(name);
            let before = seen();
            if is_nearly_done(&agents) {
                more(site, &mut agents, &mut signals)?;
            }
            proxy.set(Script::of(&mut dice).with(case.operation, case.when, case.fault));
            wait_for(&format!("{name} in front of {:?}", case.service), || {
                Ok((seen() >= before + case.times).then_some(()))
            })?;
            proxy.set(Script::of(&mut dice));
            let _ = writeln!(table, "{:?} {name} {}", case.service, seen() - before);
        }
        for (agent, signals) in agents.iter_mut().zip(&signals) {
            agent.wait_until_drained(signals.rows)?;
        }
        for agent in &mut agents {
            agent.stop()?;
        }
        expect_no_lag(site)?;
        site.stop_collector()?;
        let copy = site.lake();
        let copy = copy.to_str().context("the folder's name is text")?;
        script("bucket.py", &["fetch", &cloud.url, "lakes", "a/lake", copy])?;
        let audit = site.check(&signals)?;
        for signals in &signals {
            audit.expect_complete(&signals.device)?;
        }
        let samples = audit.total("samples")?;
        let counted = script("streams.py", &["compare", &cloud.url, copy])?;
        let counted: Json = serde_json::from_str(&counted)?;
        for sink in SINKS {
            ensure!(
                counted[sink]["samples"] == samples,
                "{counted} of {samples}"
            );
        }
        println!("{table}{}{counted}", proxy.ledger().table());
        drop(proxy);
        cloud.process.kill()?;
        Ok(())
    });
}

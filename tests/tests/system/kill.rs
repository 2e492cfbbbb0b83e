//! SIGKILL of collector and agents at random moments.

use std::time::Duration;

use anyhow::{Result, ensure};
use headwater_program::clock::wall;
use headwater_tests::dice::Dice;
use headwater_tests::lake::gaps;
use headwater_tests::signals::Signals;
use headwater_tests::site::{Agent, AgentSettings, Site, at_a_site};

/// Name of the agent whose source cannot be asked again.
const HOST: &str = "this-machine";
/// Longest life of a process between two kills, in ms.
const MAX_LIFE_MS: u64 = 900;
/// Rows per second of a generator.
const RATE: u64 = 100;

#[test]
fn killed_at_any_moment_nothing_is_missing_nothing_double_and_what_the_host_lost_is_named() {
    at_a_site(|site| {
        let kills = super::setting("HEADWATER_KILLS", 10);
        let mut dice = Dice::roll();
        // The generators outlast the kills: half a life and a restart each.
        let rows = RATE * (4 + kills);
        let signals: Vec<_> = (1..=2)
            .map(|n| Signals::live(&format!("sensor-{n}"), rows, 10_000))
            .collect();
        site.start_collector()?;
        let mut host = site.agent(
            HOST,
            "[[host]]\ninterval_ms = 50\n",
            &AgentSettings::default(),
        )?;
        host.start()?;
        let mut agents = Vec::new();
        for one in &signals {
            agents.push(site.generator(one)?);
        }
        // Before its first durable reading a host has nothing to lose.
        host.wait_until_durable(1)?;

        let mut host_kills = Vec::new();
        for kill in 0..kills {
            // This is the randomness under test, not a wait for something.
            std::thread::sleep(Duration::from_millis(dice.below(MAX_LIFE_MS)));
            match kill % 4 {
                0 | 2 => {
                    site.kill_collector()?;
                    site.start_collector()?;
                }
                1 => {
                    let victim = usize::try_from(dice.below(signals.len() as u64))?;
                    again(&mut agents[victim])?;
                }
                _ => {
                    host_kills.push(wall().0);
                    again(&mut host)?;
                }
            }
        }
        // The gap of a kill is made with the first reading of the next life.
        host.wait_for_new_readings()?;
        agents.push(host);
        site.finish(&mut agents, &signals)?;
        expect_named(site, &host_kills)
    });
}

fn again(agent: &mut Agent) -> Result<()> {
    agent.kill()?;
    agent.start()
}

fn expect_named(site: &Site, host_kills: &[i64]) -> Result<()> {
    let gaps = gaps(&site.lake())?;
    for &at in host_kills {
        let named = gaps.iter().any(|gap| {
            gap.device == HOST
                && gap.reason == "unclean_stop"
                && gap.first_us.is_some_and(|first| first <= at)
                && gap.last_us.is_some_and(|last| at <= last)
        });
        ensure!(named, "the kill at {at} µs lies in no gap of {gaps:#?}");
    }
    let other = gaps.iter().find(|gap| gap.device != HOST);
    ensure!(
        other.is_none(),
        "a generator resumes from its cursor, yet it lost: {other:?}"
    );
    Ok(())
}

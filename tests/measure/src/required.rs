//! What a second required sink costs a device: durable PUBACKs with the lake required alone, and with the hot
//! store required as well, side by side.

use anyhow::Result;
use headwater_tests::site::Site;

use crate::Effort;
use crate::puback::{Load, PLAIN, load, middle_of};
use crate::table::Figure;

/// Each collector has its turn this often; the middle ones count. What else the machine does meets both of a
/// turn alike, so the ratios are those of the turns.
const TURNS: usize = 7;
/// The configuration goes on in the table of the hot store.
const REQUIRED: &str = "required = true\n";

pub(crate) fn run(effort: Effort) -> Result<Vec<Figure>> {
    let start = |more: &str| -> Result<Site> {
        let mut site = Site::new()?;
        site.settings = format!("{more}{PLAIN}");
        site.start_collector()?;
        Ok(site)
    };
    let (mut one, mut two) = (start("")?, start(REQUIRED)?);
    let (mut with_one, mut with_two) = (Vec::new(), Vec::new());
    for turn in 0..TURNS {
        let mut order = [(&one, &mut with_one), (&two, &mut with_two)];
        if turn % 2 == 1 {
            // Whoever is first in a turn may find the machine in another state.
            order.reverse();
        }
        for (site, runs) in order {
            runs.push(load(site.mqtt().port(), effort.puback)?);
        }
    }
    one.stop_collector()?;
    two.stop_collector()?;
    let p50 = |runs: &[Load]| middle_of(runs.iter().map(|run| run.p50_ms));
    let p99 = |runs: &[Load]| middle_of(runs.iter().map(|run| run.p99_ms));
    let figure = |what: &str, value| Figure::new(what, value, "ms");
    let ratio = |what: &str, of: fn(&Load) -> f64| {
        let turns = with_two.iter().zip(&with_one);
        let value = middle_of(turns.map(|(two, one)| of(two) / of(one)));
        Figure::new(what, value, "x").at_most(1.2)
    };
    Ok(vec![
        figure("PUBACK, the lake required: the middle", p50(&with_one)),
        figure("  99 of 100 within", p99(&with_one)),
        figure(
            "PUBACK, lake and hot store required: the middle",
            p50(&with_two),
        ),
        figure("  99 of 100 within", p99(&with_two)),
        ratio("  the middle, two over one", |run| run.p50_ms),
        ratio("  99 of 100, two over one", |run| run.p99_ms),
    ])
}

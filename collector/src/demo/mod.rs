//! `headwater-collector demo`: the whole chain on one machine, watched, and proven at the end.
//!
//! Starts a collector and real agent processes; one reads this very machine, the others are fed by
//! the seeded generator. With `--chaos` processes are killed throughout. At the end everything
//! drains, the lake is audited, and every row of the generated devices is compared with the
//! generator, bit for bit.

mod check;
mod fleet;
mod report;
mod view;
mod watch;

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use headwater_program::clock::Clock;

use fleet::{Fleet, Plan};
use report::Report;
use view::Look;
use watch::Watch;

/// Pause between two looks at the fleet.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Seconds between two lines when nobody watches a terminal.
const LINE_EVERY_S: f64 = 2.0;
/// Longest wait for the last reading to arrive after the generators ended, in seconds.
const DRAIN_S: f64 = 120.0;
/// Seconds between two kills: 40 s of chaos have more than 20.
const KILL_EVERY_S: f64 = 1.5;

/// What the command line asks for.
#[derive(Debug, Clone, clap::Args)]
pub struct DemoArgs {
    /// Seconds that the generators run.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Agents in all; the first reads this machine.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(2..=500))]
    devices: u64,
    /// Folder for lake, spools and logs; must be new or empty. Default: one in the folder for
    /// temporary files.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Kill the collector and random agents throughout.
    #[arg(long)]
    chaos: bool,
    /// End with one JSON object as the last line of standard output.
    #[arg(long)]
    json: bool,
    /// The agent program. Default: the one beside this program.
    #[arg(long, hide = true)]
    agent: Option<PathBuf>,
}

/// Runs the demo; `Ok(false)` when the proof failed.
///
/// # Errors
/// When a process cannot be started, or ends by itself.
pub fn run(args: &DemoArgs, clock: &Clock) -> Result<bool> {
    let me = std::env::current_exe().context("cannot find this program's own path")?;
    let agent = args
        .agent
        .clone()
        .unwrap_or_else(|| me.with_file_name("headwater-agent"));
    if !agent.exists() {
        bail!(
            "{} is missing: build it with cargo demo, or name it with --agent",
            agent.display()
        );
    }
    let dir = folder(args.dir.as_deref(), clock)?;
    let started = clock.now();
    let rows = args.seconds * 1_000_000 / u64::from(fleet::PERIOD_US);
    let mut fleet = Fleet::prepare(&Plan {
        dir: &dir,
        collector: &me,
        agent: &agent,
        devices: usize::try_from(args.devices).context("too many devices")?,
        start_us: started.wall.0,
        rows,
    })?;
    fleet.start()?;
    let mut show = Show::new(args.json);
    let mut watch = Watch::new(args.seconds);
    let mut chaos = args
        .chaos
        .then(|| Chaos::new(started.wall.0.unsigned_abs()));
    let elapsed = |clock: &Clock| clock.now().mono.since(started.mono) as f64 / 1e3;
    loop {
        std::thread::sleep(LOOK_EVERY);
        fleet.check_alive()?;
        let at = elapsed(clock);
        let feeding = at < args.seconds as f64;
        if let Some(chaos) = chaos.as_mut().filter(|_| feeding) {
            chaos.act(at, &mut fleet, &mut watch, clock)?;
        }
        let phase = match (feeding, args.chaos) {
            (true, true) => "feeding, killing",
            (true, false) => "feeding",
            (false, _) => "draining",
        };
        let look = watch.look(&fleet, at, phase);
        show.look(&look)?;
        if !feeding && watch.is_drained(&fleet, rows) {
            break;
        }
        if at > args.seconds as f64 + DRAIN_S {
            bail!(
                "the fleet did not drain within {DRAIN_S} s; logs and status files are in {}",
                dir.display()
            );
        }
    }
    stop(&mut fleet, &mut watch, &mut show, &elapsed, clock)?;
    let report = Report::make(&fleet, &watch, started.wall, rows)?;
    show.end(&report)?;
    Ok(report.is_proven())
}

/// Agents first: what they still hold travels on while the collector lives.
fn stop(
    fleet: &mut Fleet,
    watch: &mut Watch,
    show: &mut Show,
    elapsed: &dyn Fn(&Clock) -> f64,
    clock: &Clock,
) -> Result<()> {
    for agent in &fleet.agents {
        agent.ask_to_stop()?;
    }
    let deadline = elapsed(clock) + DRAIN_S;
    let mut wait = |fleet: &mut Fleet, done: &dyn Fn(&mut Fleet) -> Result<bool>| -> Result<()> {
        while !done(fleet)? {
            std::thread::sleep(LOOK_EVERY);
            let at = elapsed(clock);
            show.look(&watch.look(fleet, at, "stopping"))?;
            if at > deadline {
                bail!("a process did not stop within {DRAIN_S} s; its log is in the logs folder");
            }
        }
        Ok(())
    };
    wait(fleet, &|fleet| {
        fleet
            .agents
            .iter_mut()
            .try_fold(true, |all, agent| Ok(agent.has_stopped()? && all))
    })?;
    fleet.collector.ask_to_stop()?;
    wait(fleet, &|fleet| fleet.collector.has_stopped())
}

/// The demo's folder: given or fresh, never one with something in it.
fn folder(wanted: Option<&Path>, clock: &Clock) -> Result<PathBuf> {
    let dir = match wanted {
        Some(dir) => dir.to_path_buf(),
        None => {
            let second = clock.now().wall.0 / 1_000_000;
            std::env::temp_dir().join(format!("headwater-demo-{second}-{}", std::process::id()))
        }
    };
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    if std::fs::read_dir(&dir)?.next().is_some() {
        bail!(
            "{} is not empty: the demo starts from nothing, give it a new folder",
            dir.display()
        );
    }
    dir.canonicalize()
        .with_context(|| format!("cannot find {}", dir.display()))
}

/// Kills processes at random, starting each again at once.
struct Chaos {
    random: u64,
    next_s: f64,
    turn: u32,
}

impl Chaos {
    fn new(seed: u64) -> Self {
        Self {
            random: seed | 1,
            next_s: KILL_EVERY_S,
            turn: 0,
        }
    }

    fn act(&mut self, at: f64, fleet: &mut Fleet, watch: &mut Watch, clock: &Clock) -> Result<()> {
        if at < self.next_s {
            return Ok(());
        }
        self.next_s = at + KILL_EVERY_S * (0.5 + self.draw(1000) as f64 / 1000.0);
        self.turn += 1;
        // Every third kill is the collector's, every fifth this machine's agent's.
        if self.turn.is_multiple_of(3) {
            watch.before_collector_kill(fleet);
            fleet.collector.kill()?;
            return fleet.collector.start();
        }
        let generated = fleet.agents.len() as u64 - 1;
        let victim = if self.turn.is_multiple_of(5) {
            0
        } else {
            1 + self.draw(generated)
        };
        let victim = usize::try_from(victim).context("too many devices")?;
        if victim == 0 {
            watch.host_killed(clock.now().wall);
        }
        fleet.agents[victim].kill()?;
        fleet.agents[victim].start()
    }

    /// xorshift64: a demo's choice of victims needs no more.
    fn draw(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % below.max(1)
    }
}

/// Where people look: a live table on a terminal, now and then a line elsewhere. The result goes
/// to standard output, everything before it to standard error.
struct Show {
    live: bool,
    json: bool,
    next_line_s: f64,
}

impl Show {
    fn new(json: bool) -> Self {
        Self {
            live: std::io::stderr().is_terminal(),
            json,
            next_line_s: 0.0,
        }
    }

    fn look(&mut self, look: &Look) -> Result<()> {
        let mut err = std::io::stderr().lock();
        if self.live {
            // Home, draw, clear to the end of each line and of the screen: no flicker.
            let table = view::table(look).replace('\n', "\x1b[K\n");
            write!(err, "\x1b[H{table}\x1b[J")?;
        } else if look.elapsed_s >= self.next_line_s {
            self.next_line_s = look.elapsed_s + LINE_EVERY_S;
            writeln!(err, "{}", view::line(look))?;
        }
        Ok(())
    }

    fn end(&self, report: &Report) -> Result<()> {
        let mut text = report.text();
        if self.json {
            write!(std::io::stderr().lock(), "\n{text}")?;
            text = format!("{}\n", report.json());
        } else {
            text.insert(0, '\n');
        }
        write!(std::io::stdout().lock(), "{text}")?;
        Ok(())
    }
}

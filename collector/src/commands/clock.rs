//! `headwater-collector clock`: what an operator decides about the collector's own clock.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use headwater_program::output::print;

use super::status::{Request, ask};
use crate::http::FORGET_HEADER;

/// What can be decided.
#[derive(Debug, clap::Subcommand)]
pub enum ClockCommand {
    /// The clock of the collector's machine is right as it stands: end the doubt in it.
    ///
    /// What came while it was in doubt is dated by it, and goes to the sinks. Look at the clock before: nothing takes
    /// this back. It holds until the clock is set by more than a minute, or the collector ends.
    /// Exit code 1: it was not in doubt.
    Trust(TrustArgs),
}

/// What `trust` takes.
#[derive(Debug, clap::Args)]
pub struct TrustArgs {
    /// HTTP address of the running collector.
    #[arg(long, default_value = "127.0.0.1:8080")]
    http: SocketAddr,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(command: &ClockCommand) -> Result<bool> {
    let ClockCommand::Trust(args) = command;
    let (code, body) = ask(
        args.http,
        &Request {
            method: "POST",
            path: "/v1/clock/trust",
            header: Some((FORGET_HEADER, "trust")),
        },
    )?;
    let answer: serde_json::Value =
        serde_json::from_str(&body).with_context(|| format!("the answer is {body:?}"))?;
    if code != 200 {
        bail!("{}", answer["error"].as_str().unwrap_or(&body));
    }
    let was_in_doubt = answer["was_in_doubt"].as_bool().unwrap_or(false);
    if args.json {
        print(&format!("{answer}\n"))?;
    } else if was_in_doubt {
        print("the clock is believed; what came meanwhile is dated by it\n")?;
    } else {
        print("the clock was not in doubt\n")?;
    }
    Ok(was_in_doubt)
}

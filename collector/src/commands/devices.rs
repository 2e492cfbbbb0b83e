//! `headwater-collector devices`: what an operator decides about devices.

use std::fmt::Write as _;
use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use headwater_program::output::print;
use headwater_proto::ids::DeviceId;

use super::status::{Request, ask};
use crate::http::FORGET_HEADER;

/// What can be decided.
#[derive(Debug, clap::Subcommand)]
pub enum DevicesCommand {
    /// A device will not come back: abandon its open epochs, and name in a gap what is missing.
    ///
    /// Epochs that a connected client lists stay open. What comes all the same later is stored, and
    /// wins over the gap.
    /// Exit code 1: nothing was open that could be abandoned.
    Forget(ForgetArgs),
}

/// What `forget` takes.
#[derive(Debug, clap::Args)]
pub struct ForgetArgs {
    /// The device's id.
    device: String,
    /// HTTP address of the running collector.
    #[arg(long, default_value = "127.0.0.1:8080")]
    http: SocketAddr,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(command: &DevicesCommand) -> Result<bool> {
    let DevicesCommand::Forget(args) = command;
    let device = <DeviceId>::new(&args.device)
        .with_context(|| format!("{:?} is no device id", args.device))?;
    let path = format!("/v1/devices/{}/forget", in_path(device.as_str()));
    let (code, body) = ask(
        args.http,
        &Request {
            method: "POST",
            path: &path,
            header: Some((FORGET_HEADER, "forget")),
        },
    )?;
    let answer: serde_json::Value =
        serde_json::from_str(&body).with_context(|| format!("the answer is {body:?}"))?;
    if code != 200 {
        bail!("{}", answer["error"].as_str().unwrap_or(&body));
    }
    let abandoned = answer["abandoned"].as_array().map_or(0, Vec::len);
    if args.json {
        print(&format!("{answer}\n"))?;
    } else {
        print(&as_text(&answer))?;
    }
    Ok(abandoned > 0)
}

fn as_text(answer: &serde_json::Value) -> String {
    let mut out = String::new();
    let lists = [
        ("abandoned", "abandoned"),
        ("listed", "still listed by a connected client"),
    ];
    for (key, text) in lists {
        for epoch in answer[key].as_array().into_iter().flatten() {
            let word = |name: &str| epoch[name].as_str().unwrap_or_default().to_owned();
            let _ = writeln!(out, "{:<8} {}  {text}", word("lane"), word("epoch"));
        }
    }
    if out.is_empty() {
        out.push_str("no epoch of that device is open\n");
    }
    out
}

/// A segment of a path: every byte that could mean something else is written `%XX`.
fn in_path(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::in_path;

    #[test]
    fn a_device_is_one_segment_of_a_path() {
        assert_eq!(in_path("pump-7"), "pump-7");
        assert_eq!(in_path("a/b c?é"), "a%2Fb%20c%3F%C3%A9");
    }
}

//! `headwater-collector status`: asks a running collector over HTTP.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use headwater_program::output::print;

const TIMEOUT: Duration = Duration::from_secs(5);

/// What `status` takes.
#[derive(Debug, clap::Args)]
pub struct StatusArgs {
    /// Its HTTP address.
    #[arg(long, default_value = "127.0.0.1:8080")]
    http: SocketAddr,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &StatusArgs) -> Result<bool> {
    let (code, said) = get(args.http, "/readyz")?;
    let ready = code == 200;
    let (_, metrics) = get(args.http, "/metrics")?;
    let counters: serde_json::Map<String, serde_json::Value> = metrics
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((
                name.to_owned(),
                serde_json::Value::from(value.parse::<f64>().ok()?),
            ))
        })
        .collect();
    // The first line of one that is ready says just that.
    let reasons: Vec<&str> = said.lines().skip(usize::from(ready)).collect();
    let text = if args.json {
        serde_json::json!({ "ready": ready, "reasons": reasons, "metrics": counters }).to_string()
    } else {
        let mut text = if ready {
            let notes = reasons.iter().map(|note| format!("\n{note}"));
            format!("ready{}", notes.collect::<String>())
        } else {
            format!("NOT READY: {}", reasons.join("; "))
        };
        for (name, value) in &counters {
            text.push_str(&format!("\n{name:<60} {value}"));
        }
        text
    };
    print(&format!("{text}\n"))?;
    Ok(ready)
}

fn get(address: SocketAddr, path: &str) -> Result<(u16, String)> {
    let request = Request {
        method: "GET",
        path,
        header: None,
    };
    ask(address, &request)
}

/// What a running collector is asked over HTTP.
pub(super) struct Request<'a> {
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    pub(super) header: Option<(&'a str, &'a str)>,
}

/// Status and body of its answer.
pub(super) fn ask(address: SocketAddr, request: &Request<'_>) -> Result<(u16, String)> {
    let nobody =
        || format!("no collector answers on {address}; is it running, with this http.listen?");
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT).with_context(nobody)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    let Request { method, path, .. } = request;
    let mut text = format!("{method} {path} HTTP/1.0\r\nHost: {address}\r\n");
    if let Some((name, value)) = request.header {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    stream.write_all(format!("{text}\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).with_context(nobody)?;
    let Some((head, body)) = answer.split_once("\r\n\r\n") else {
        bail!("{address} does not answer in HTTP");
    };
    let code = head
        .split_whitespace()
        .nth(1)
        .and_then(|code| code.parse().ok());
    Ok((
        code.context("the answer has no status code")?,
        body.to_owned(),
    ))
}

//! One connection of a client: reads calls, carries their faults out, answers them.

use std::io::{BufReader, Write};

use anyhow::{Context, Result};
use headwater_program::clock::wall;
use serde_json::Value;

use super::answers::{http_date, refusal};
use super::call::{Call, Service};
use super::http::{Answer, Body, Head, read_answer, read_body, read_head};
use super::items::{Batch, Failure, Item};
use super::ledger::Entry;
use super::limits::breach;
use super::script::{End, Plan};
use super::shared::{Shared, Socket};

/// Most bytes that are read at once; a slow link waits between two reads.
const READ_BYTES: usize = 8 * 1024;

/// Bytes of an answer that are written while the ledger is held: so a client that has its answer finds
/// it in the ledger. Few, because nobody reads the ledger meanwhile.
const LAST_BYTES: usize = 1024;

/// A request, as far as it is understood.
struct Request {
    head: Head,
    body: Body,
    call: Call,
    batch: Option<Batch>,
    /// Of its link, if that is slow.
    bytes_per_s: Option<u64>,
}

/// What came of a request.
#[derive(Default)]
struct Served {
    /// `None` if the emulator gave none that fits.
    answer: Option<Answer>,
    /// HTTP status of the emulator.
    upstream: Option<u16>,
    /// For each item whether the service has it.
    stored: Vec<bool>,
    /// Whether the answer tells of each item.
    tells_items: bool,
}

/// Serves a client until one side closes.
///
/// # Errors
/// When the connection fails, or the client does not speak HTTP.
pub(super) fn serve(shared: &Shared, client: &Socket<'_>) -> Result<()> {
    let mut reader = BufReader::with_capacity(READ_BYTES, &client.stream);
    while let Some(request) = read(shared, client, &mut reader)? {
        let items = request.batch.as_ref().map_or(&[][..], Batch::items);
        let plan = shared.script().decide(&request.call, items, shared.now());
        if !carry_out(shared, client, &request, &plan) {
            break;
        }
    }
    Ok(())
}

fn read(
    shared: &Shared,
    client: &Socket<'_>,
    reader: &mut BufReader<&std::net::TcpStream>,
) -> Result<Option<Request>> {
    let Some(head) = read_head(reader)? else {
        return Ok(None);
    };
    let mut call = Call::of(&head);
    let bytes_per_s = shared.script().bandwidth(&call);
    if head.expects_continue() {
        (&client.stream).write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    let body = read_body(reader, &head, &mut |bytes| {
        shared.carry_up(bytes, bytes_per_s);
    })?;
    let json: Option<Value> = match call.service {
        Service::Kinesis | Service::Firehose | Service::DynamoDb => {
            serde_json::from_slice(body.bytes()).ok()
        }
        Service::S3 | Service::Other => None,
    };
    let batch = json.and_then(|json| {
        call.read(&json);
        Batch::of(&call, json)
    });
    Ok(Some(Request {
        head,
        body,
        call,
        batch,
        bytes_per_s,
    }))
}

/// Answers a request as planned, and writes it down before the client can know. Whether the
/// connection goes on.
fn carry_out(shared: &Shared, client: &Socket<'_>, request: &Request, plan: &Plan) -> bool {
    let served = match plan.end {
        End::DropBefore => Served::default(),
        End::Hang(time) => {
            shared.wait(time);
            Served::default()
        }
        End::Late(delay) => {
            client.close();
            if shared.wait(delay) {
                answer(shared, request, plan)
            } else {
                Served::default()
            }
        }
        End::Answer | End::DropAfter | End::HalfAnswer => answer(shared, request, plan),
    };
    let closes = request.head.closes();
    let mut bytes = Vec::new();
    if let Some(answer) = &served.answer {
        shared.wait(plan.delay);
        bytes = answer.encode(request.call.is_head, closes);
    }
    match plan.end {
        End::Answer => {}
        End::HalfAnswer => bytes.truncate(bytes.len() / 2),
        End::DropBefore | End::DropAfter | End::Late(_) | End::Hang(_) => bytes.clear(),
    }
    let (most, last) = bytes.split_at(bytes.len().saturating_sub(LAST_BYTES));
    let mut written = shared.write_down(&client.stream, most, request.bytes_per_s);
    let mut ledger = shared.ledger();
    if written == most.len() {
        written += shared.write_down(&client.stream, last, request.bytes_per_s);
    }
    let is_told = plan.end == End::Answer && written == bytes.len();
    let told = served
        .answer
        .as_ref()
        .filter(|_| is_told)
        .map(|answer| answer.status);
    ledger.add(&Entry {
        call: &request.call,
        told,
        upstream: served.upstream,
        injected: &plan.injected,
        bytes_in: request.body.raw().len(),
        bytes_out: written,
        items: request.batch.as_ref().map_or(&[][..], Batch::items),
        stored: &served.stored,
        tells_items: is_told && served.tells_items,
    });
    drop(ledger);
    told.is_some() && !closes && !shared.has_ended()
}

/// The answer to a request, from the emulator or in its place.
fn answer(shared: &Shared, request: &Request, plan: &Plan) -> Served {
    let breach = request
        .batch
        .as_ref()
        .and_then(|batch| breach(request.call.operation, batch.items()));
    let full = request
        .batch
        .as_ref()
        .and_then(|batch| batch.failure_of_all(&plan.failures));
    let refused = breach
        .map(|failure| (400, failure))
        .or_else(|| plan.refusal.clone())
        .or(full.map(|failure| (400, failure)));
    let served = match refused {
        Some((status, failure)) => Ok(refuse(shared, request, status, &failure)),
        None => forward(shared, request, plan),
    };
    let mut served = served.unwrap_or_else(|_| {
        shared.ledger().add_broken();
        Served::default()
    });
    if let Some(answer) = &mut served.answer {
        let now_s = wall().0.div_euclid(1_000_000);
        if let Some(skew_s) = plan.skew_s {
            answer.set_header("date", http_date(now_s.saturating_add(skew_s)));
        } else if answer.header("date").is_none() {
            answer.set_header("date", http_date(now_s));
        }
    }
    served
}

fn refuse(shared: &Shared, request: &Request, status: u16, failure: &Failure) -> Served {
    let id = u64::try_from(shared.now().as_nanos()).unwrap_or(u64::MAX);
    let content_type = request.head.header("content-type");
    let items = request.batch.as_ref().map_or(&[][..], Batch::items);
    Served {
        answer: Some(refusal(&request.call, status, failure, content_type, id)),
        stored: vec![false; items.len()],
        tells_items: true,
        upstream: None,
    }
}

fn forward(shared: &Shared, request: &Request, plan: &Plan) -> Result<Served> {
    let Some(batch) = request
        .batch
        .as_ref()
        .filter(|batch| !batch.items().is_empty())
    else {
        let answer = pass_on(shared, &request.head, &request.head.raw, request.body.raw())?;
        let upstream = Some(answer.status);
        return Ok(Served {
            answer: Some(answer),
            upstream,
            ..Served::default()
        });
    };
    let mut failures = plan.failures.clone();
    let pieces = batch.pieces(&failures);
    let is_whole = pieces.first().map(Vec::len) == Some(batch.items().len());
    let (mut last, mut answered) = (None, Vec::new());
    for piece in pieces {
        let answer = if is_whole {
            pass_on(shared, &request.head, &request.head.raw, request.body.raw())?
        } else {
            let body = batch.request_of(&piece);
            pass_on(
                shared,
                &request.head,
                &request.head.with_length(body.len()),
                &body,
            )?
        };
        if answer.is_good() {
            answered.push((piece, serde_json::from_slice(&answer.body)?));
        } else if last.is_none() {
            // Nothing is stored yet: the call as a whole fails.
            return Ok(refused_by_emulator(answer, batch.items()));
        } else {
            for index in piece {
                failures[index] = Some(Failure::new("InternalFailure", "a later part was refused"));
            }
            continue;
        }
        last = Some(answer);
    }
    let upstream = last.as_ref().map(|answer| answer.status);
    let mut answer = last.unwrap_or_else(|| empty_answer(request));
    let mut merged = batch.merge(&failures, &answered)?;
    let is_short = plan
        .shorten
        .is_some_and(|draw| batch.shorten(&mut merged.answer, draw));
    if !is_whole || is_short {
        answer.set_body(merged.answer.to_string().into_bytes());
    }
    Ok(Served {
        answer: Some(answer),
        upstream,
        stored: merged.stored,
        tells_items: !is_short,
    })
}

fn refused_by_emulator(answer: Answer, items: &[Item]) -> Served {
    Served {
        upstream: Some(answer.status),
        answer: Some(answer),
        stored: vec![false; items.len()],
        tells_items: true,
    }
}

/// An answer that no emulator gave: all items of the call fail.
fn empty_answer(request: &Request) -> Answer {
    let mut answer = Answer {
        status: 200,
        reason: "OK".to_owned(),
        ..Answer::default()
    };
    let content_type = request
        .head
        .header("content-type")
        .unwrap_or("application/x-amz-json-1.1");
    answer.set_header("content-type", content_type.to_owned());
    answer.set_header("x-amzn-requestid", "proxy-all-failed".to_owned());
    answer
}

/// Sends a request to the emulator over a connection of its own, and reads the answer.
fn pass_on(shared: &Shared, head: &Head, raw_head: &[u8], body: &[u8]) -> Result<Answer> {
    let socket = shared.connect().context("no connection to the emulator")?;
    let mut stream = &socket.stream;
    stream.write_all(raw_head)?;
    stream.write_all(body)?;
    read_answer(&mut BufReader::new(stream), head.method == "HEAD")
}

//! The read interface over the hot store.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use headwater_lake::date::instant_text;
use headwater_proto::ids::{DeviceId, Stream};
use serde::Deserialize;
use serde_json::{Value as Json_, json};

use super::{FORGET_HEADER, Shared, time};
use crate::interpret::told::value_json;
use crate::sink::hot::{Cursor, DeviceInfo, HotError, HotRead, MAX_PAGE, Point};

/// Items of a page when `limit` is not given.
const DEFAULT_PAGE: usize = 1_000;
/// The same for the points of a series.
const DEFAULT_POINTS: usize = MAX_PAGE;
/// Span of a series when `from` is not given.
const DEFAULT_SPAN_US: i64 = 3_600_000_000;

/// An error as JSON.
pub(super) fn error(status: StatusCode, text: &str) -> Response {
    (status, Json(json!({ "error": text }))).into_response()
}

/// Which page of an answer is wanted.
#[derive(Debug, Deserialize)]
pub(super) struct PageQuery {
    after: Option<String>,
    limit: Option<String>,
}

impl PageQuery {
    /// Cursor and size, or what is wrong with them.
    fn read(&self, default: usize, problems: &mut Vec<String>) -> (Option<Cursor>, usize) {
        let after = self.after.as_ref().and_then(|text| {
            let read = text.parse::<Cursor>();
            read.inspect_err(|error| problems.push(format!("after={text}: {error}")))
                .ok()
        });
        let limit = self.limit.as_ref().and_then(|text| {
            let limit = text.parse().ok().filter(|n| (1..=MAX_PAGE).contains(n));
            if limit.is_none() {
                problems.push(format!(
                    "limit={text}: must be a number from 1 to {MAX_PAGE}"
                ));
            }
            limit
        });
        (after, limit.unwrap_or(default))
    }
}

fn bad_request(problems: &[String]) -> Response {
    error(StatusCode::BAD_REQUEST, &problems.join("; "))
}

fn next_json(next: Option<&Cursor>) -> Json_ {
    next.map_or(Json_::Null, |cursor| cursor.to_string().into())
}

pub(super) async fn devices(
    State(shared): State<Arc<Shared>>,
    Query(query): Query<PageQuery>,
) -> Response {
    read(shared, move |hot, _| {
        let mut problems = Vec::new();
        let (after, most) = query.read(DEFAULT_PAGE, &mut problems);
        if !problems.is_empty() {
            return Ok(bad_request(&problems));
        }
        let page = hot.devices(after.as_ref(), most)?;
        let devices = page.items.iter();
        let devices: Vec<Json_> = devices
            .map(|(name, info)| device_json(name, info))
            .collect();
        let next = next_json(page.next.as_ref());
        Ok(Json(json!({ "devices": devices, "next": next })).into_response())
    })
    .await
}

pub(super) async fn latest(
    State(shared): State<Arc<Shared>>,
    Path(device): Path<String>,
    Query(query): Query<PageQuery>,
) -> Response {
    read(shared, move |hot, _| {
        let mut problems = Vec::new();
        let (after, most) = query.read(DEFAULT_PAGE, &mut problems);
        if !problems.is_empty() {
            return Ok(bad_request(&problems));
        }
        let Some(info) = known(hot, &device)? else {
            return Ok(unknown(&device));
        };
        let page = hot.latest(&device, after.as_ref(), most)?;
        let mut answer = device_json(&device, &info);
        answer["latest"] = page.items.iter().map(point_json).collect();
        answer["next"] = next_json(page.next.as_ref());
        Ok(Json(answer).into_response())
    })
    .await
}

#[derive(Debug, Deserialize)]
pub(super) struct SeriesQuery {
    metric: Option<String>,
    from: Option<String>,
    to: Option<String>,
    after: Option<String>,
    limit: Option<String>,
}

pub(super) async fn series(
    State(shared): State<Arc<Shared>>,
    Path(device): Path<String>,
    Query(query): Query<SeriesQuery>,
) -> Response {
    read(shared, move |hot, now_us| {
        let Some(metric) = query.metric.filter(|metric| !metric.is_empty()) else {
            let text = "add ?metric=NAME; /latest names the metrics of a device";
            return Ok(error(StatusCode::BAD_REQUEST, text));
        };
        let mut problems = Vec::new();
        let mut moment = |name: &str, text: Option<String>, default: i64| match text {
            None => default,
            Some(text) => time::parse(&text).unwrap_or_else(|| {
                problems.push(format!(
                    "{name}={text}: must be Unix milliseconds or RFC 3339 in UTC, for example \
                     2026-11-22T08:00:00Z"
                ));
                default
            }),
        };
        let to = moment("to", query.to, now_us.saturating_add(1));
        let from = moment("from", query.from, to.saturating_sub(DEFAULT_SPAN_US));
        if problems.is_empty() && from >= to {
            problems.push("from must lie before to".into());
        }
        let pages = PageQuery {
            after: query.after,
            limit: query.limit,
        };
        let (after, most) = pages.read(DEFAULT_POINTS, &mut problems);
        if !problems.is_empty() {
            return Ok(bad_request(&problems));
        }
        if known(hot, &device)?.is_none() {
            return Ok(unknown(&device));
        }
        let page = hot.series(&device, &metric, from..to, after.as_ref(), most)?;
        let points: Vec<Json_> = page.items.iter().map(point_json).collect();
        Ok(Json(json!({
            "device": device,
            "metric": metric,
            "from": instant_text(from),
            "to": instant_text(to),
            "truncated": page.next.is_some(),
            "next": next_json(page.next.as_ref()),
            "points": points,
        }))
        .into_response())
    })
    .await
}

/// The answer to a request that would change something and does not say which change it wants.
fn unconfirmed(headers: &HeaderMap, word: &str) -> Option<Response> {
    let is_confirmed = headers
        .get(FORGET_HEADER)
        .is_some_and(|value| value == word);
    let text = || format!("add the header {FORGET_HEADER}: {word}");
    (!is_confirmed).then(|| error(StatusCode::FORBIDDEN, &text()))
}

pub(super) async fn trust_clock(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    if let Some(refused) = unconfirmed(&headers, "trust") {
        return refused;
    }
    // The owner of the journal answers after its next sync.
    let done = tokio::task::spawn_blocking(move || (shared.trust_clock)()).await;
    match done {
        Ok(Ok(was_in_doubt)) => Json(json!({ "was_in_doubt": was_in_doubt })).into_response(),
        Ok(Err(why)) => error(StatusCode::SERVICE_UNAVAILABLE, &why),
        Err(_) => error(StatusCode::INTERNAL_SERVER_ERROR, "it was cut short"),
    }
}

pub(super) async fn forget(
    State(shared): State<Arc<Shared>>,
    Path(device): Path<String>,
    headers: HeaderMap,
) -> Response {
    if let Some(refused) = unconfirmed(&headers, "forget") {
        return refused;
    }
    let Ok(id) = DeviceId::new(&device) else {
        return error(StatusCode::BAD_REQUEST, "the path names no device id");
    };
    // The owner of the journal answers after its next sync.
    let done = tokio::task::spawn_blocking(move || (shared.forget)(id)).await;
    match done {
        Ok(Ok(forgotten)) => Json(json!({
            "device": device,
            "abandoned": epochs_json(&forgotten.abandoned),
            "listed": epochs_json(&forgotten.listed),
        }))
        .into_response(),
        Ok(Err(why)) => error(StatusCode::SERVICE_UNAVAILABLE, &why),
        Err(_) => error(StatusCode::INTERNAL_SERVER_ERROR, "it was cut short"),
    }
}

fn epochs_json(streams: &[Stream]) -> Json_ {
    let one =
        |stream: &Stream| json!({ "lane": stream.lane.name(), "epoch": stream.epoch.to_string() });
    streams.iter().map(one).collect()
}

/// Runs a read of the hot store off the runtime's threads: sled blocks.
async fn read(
    shared: Arc<Shared>,
    work: impl FnOnce(&dyn HotRead, i64) -> Result<Response, HotError> + Send + 'static,
) -> Response {
    let done = tokio::task::spawn_blocking(move || {
        let Some(hot) = &shared.hot else {
            let text = "the hot store is switched off in the configuration";
            return error(StatusCode::NOT_FOUND, text);
        };
        work(hot.as_ref(), (shared.now_us)()).unwrap_or_else(|e| refusal(&e))
    })
    .await;
    done.unwrap_or_else(|_| error(StatusCode::INTERNAL_SERVER_ERROR, "the read was cut short"))
}

fn refusal(why: &HotError) -> Response {
    let status = match why {
        HotError::Cursor(_) => StatusCode::BAD_REQUEST,
        HotError::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    error(status, &why.to_string())
}

fn known(hot: &dyn HotRead, device: &str) -> Result<Option<DeviceInfo>, HotError> {
    // A text that is no device id cannot be a key: another device's keys begin with it.
    if <DeviceId>::new(device).is_err() {
        return Ok(None);
    }
    hot.device(device)
}

fn unknown(device: &str) -> Response {
    error(
        StatusCode::NOT_FOUND,
        &format!("no readings of a device '{device}' are known here"),
    )
}

fn device_json(name: &str, info: &DeviceInfo) -> Json_ {
    json!({
        "device": name,
        "first_seen": instant_text(info.first_seen_us),
        "last_seen": instant_text(info.last_seen_us),
        "records": info.records,
        "samples": info.samples,
    })
}

fn point_json(point: &Point) -> Json_ {
    let mut object = json!({
        "metric": point.metric,
        "time": instant_text(point.time_us),
        "value": value_json(point.value.borrowed()),
    });
    if !point.labels.is_empty() {
        object["labels"] = serde_json::from_str(&point.labels).unwrap_or(Json_::Null);
    }
    object
}

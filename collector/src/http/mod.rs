//! The HTTP interface: health, metrics, and what devices said last.
//!
//! | path | answer |
//! |---|---|
//! | `/healthz` | 200 while the process works |
//! | `/readyz` | 200 when it takes data; 503 and the reasons when it does not; either way a line for each sink in trouble |
//! | `/metrics` | counters in Prometheus text |
//! | `/v1/devices` | every device with what is known about it |
//! | `/v1/devices/{id}/latest` | the newest value of each metric |
//! | `/v1/devices/{id}/series?metric=&from=&to=` | recent readings of one metric |
//!
//! | POST `/v1/devices/{id}/forget` | abandons its open epochs; needs the header `x-headwater-confirm: forget` |
//! | POST `/v1/clock/trust` | ends the doubt in the collector's own clock; needs the header `x-headwater-confirm: trust` |
//!
//! The answers about devices come in pages: `limit=` items at most, and `after=` the field `next` of the page
//! before. The first page of a series holds its newest points.
//!
//! Times in queries are Unix milliseconds or RFC 3339 in UTC (`2026-11-22T08:00:00Z`).

pub(crate) mod api;
mod time;

use std::sync::Arc;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use headwater_proto::ids::DeviceId;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::pipeline::custody::Forgotten;
use crate::sink::hot::HotRead;

/// Header that a request must carry which changes something: a page in a browser cannot set it.
pub(crate) const FORGET_HEADER: &str = "x-headwater-confirm";

/// What the interface shows; shared with the parts that know it.
pub struct Shared {
    /// The hot store, if it is on.
    pub hot: Option<Box<dyn HotRead>>,
    /// Counters in Prometheus text.
    pub metrics: Box<dyn Fn() -> String + Send + Sync>,
    /// Why the collector does not take data now; empty when it does.
    pub not_ready: Box<dyn Fn() -> Vec<String> + Send + Sync>,
    /// Abandons the open epochs of a device; may block until that is durable.
    pub forget: Box<dyn Fn(DeviceId) -> Result<Forgotten, String> + Send + Sync>,
    /// Has the collector's clock believed as it stands, and says whether it was in doubt; may block until that is
    /// durable.
    pub trust_clock: Box<dyn Fn() -> Result<bool, String> + Send + Sync>,
    /// What is wrong without keeping data out.
    pub notes: Box<dyn Fn() -> Vec<String> + Send + Sync>,
    /// Wall time, for the default span of a series.
    pub now_us: Box<dyn Fn() -> i64 + Send + Sync>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("hot", &self.hot.is_some())
            .finish_non_exhaustive()
    }
}

/// Serves until `stop`; open answers are finished first.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    listener: TcpListener,
    shared: Arc<Shared>,
    stop: CancellationToken,
) -> std::io::Result<()> {
    axum::serve(listener, router(shared))
        .with_graceful_shutdown(stop.cancelled_owned())
        .await
}

fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/v1/devices", get(api::devices))
        .route("/v1/devices/{id}/latest", get(api::latest))
        .route("/v1/devices/{id}/series", get(api::series))
        .route("/v1/devices/{id}/forget", post(api::forget))
        .route("/v1/clock/trust", post(api::trust_clock))
        .fallback(|| async { api::error(StatusCode::NOT_FOUND, "there is nothing at this path") })
        .with_state(shared)
}

async fn ready(state: axum::extract::State<Arc<Shared>>) -> Response {
    let (reasons, notes) = ((state.not_ready)(), (state.notes)());
    let (code, first) = if reasons.is_empty() {
        (StatusCode::OK, vec!["ready".to_owned()])
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, reasons)
    };
    let lines = [first, notes].concat();
    (code, lines.join("\n") + "\n").into_response()
}

async fn metrics(state: axum::extract::State<Arc<Shared>>) -> Response {
    const TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, TYPE)], (state.metrics)()).into_response()
}

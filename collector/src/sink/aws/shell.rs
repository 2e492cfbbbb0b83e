//! The AWS SDK behind the seam of streaming services.

use anyhow::Result;
pub(super) use headwater_aws::Service as Of;
use headwater_aws::Streams;

use super::Place;
use super::codes::{answer_of, item};
use crate::interpret::Depth;
use crate::sink::kind::{Replay, Start};
use crate::sink::letters::Replayed;
use crate::sink::stream::service::{Answer, CallLimits, Record, Service};
use crate::sink::stream::{self, StreamSink};
use crate::sink::worker::Worker;

/// Records of a call at most, of both services.
const CALL_RECORDS: usize = 500;
/// Bytes of a call at most: 4 MiB are Firehose's own bound, and below Kinesis's.
const CALL_BYTES: usize = 4_000_000;

/// Starts a sink of a streaming service.
pub(super) fn start(of: Of, mut start: Start<'_>, place: Place) -> Result<()> {
    let (name, required) = (start.name().clone(), start.required());
    let (settings, service) = (place.settings, Stream::new(of, place)?);
    let custody = &mut start.site().custody;
    let (from, sink) = match stream::open(custody, &name, service, settings) {
        Ok(opened) => opened,
        Err(error) if required => return Err(error),
        Err(error) => {
            start.stay_off(&format!("it cannot be opened: {error:#}"));
            return Ok(());
        }
    };
    start.run(from, Depth::Samples, move |feed| Worker::new(sink, feed));
    Ok(())
}

/// Gives a service the dead letters of its sink once more.
pub(super) fn replay(of: Of, replay: Replay<'_>, place: Place) -> Result<Replayed> {
    let (settings, service) = (place.settings, Stream::new(of, place)?);
    replay.run(StreamSink::apart(service, settings), Depth::Samples)
}

/// A stream of a service.
struct Stream(Streams);

impl Stream {
    fn new(of: Of, place: Place) -> Result<Self> {
        Ok(Self(Streams::new(of, place.stream, place.access)?))
    }
}

impl Service for Stream {
    fn put(&mut self, records: Vec<Record>) -> impl Future<Output = Answer> + Send {
        let streams = self.0.clone();
        async move {
            let records = records.into_iter().map(|record| (record.key, record.bytes));
            let answer = match streams.put(records.collect()).await {
                Ok(items) => {
                    let items = items.iter();
                    let each = items.map(|it| item(it.code.as_deref(), it.message.as_deref()));
                    Answer::Each(each.collect())
                }
                Err(trouble) => answer_of(trouble),
            };
            if matches!(answer, Answer::Denied { .. }) {
                streams.renew().await;
            }
            answer
        }
    }

    fn limits(&self) -> CallLimits {
        CallLimits {
            records: CALL_RECORDS,
            bytes: CALL_BYTES,
        }
    }
}

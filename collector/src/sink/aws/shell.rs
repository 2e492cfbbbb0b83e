//! The AWS SDK behind the seam of streaming services.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context as _, Result};
use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_firehose::primitives::Blob as FirehoseBlob;
use aws_sdk_firehose::types::Record as FirehoseRecord;
use aws_sdk_kinesis::error::{BuildError, ProvideErrorMetadata, SdkError};
use aws_sdk_kinesis::primitives::Blob as KinesisBlob;
use aws_sdk_kinesis::types::PutRecordsRequestEntry;
use aws_smithy_http_client::Builder as HttpBuilder;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use headwater_program::chain::chain;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Mutex;

use super::codes::{Fault, NO_CREDENTIALS, item};
use super::{Access, Place, endpoint_problem};
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
/// Threads that carry out calls, apart from the gate's.
const THREADS: usize = 1;
/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(4);
/// Longest wait for an answer, beside the time that its bytes take.
const ANSWER: Duration = Duration::from_secs(10);
/// Bytes a second of the slowest link that a call gets through on.
const SLOWEST_BYTES_S: u64 = 32 << 10;

/// Starts a sink of a streaming service.
pub(super) fn start<C: Client>(mut start: Start<'_>, place: Place) -> Result<()> {
    let (name, required) = (start.name().clone(), start.required());
    let (settings, service) = (place.settings, Stream::<C>::new(place)?);
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
pub(super) fn replay<C: Client>(replay: Replay<'_>, place: Place) -> Result<Replayed> {
    let (settings, service) = (place.settings, Stream::<C>::new(place)?);
    replay.run(StreamSink::apart(service, settings), Depth::Samples)
}

/// The runtime of all calls; it lives as long as the program.
fn runtime() -> Result<&'static Runtime> {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    if let Some(runtime) = RUNTIME.get() {
        return Ok(runtime);
    }
    let mut builder = Builder::new_multi_thread();
    let builder = builder
        .worker_threads(THREADS)
        .thread_name("aws")
        .enable_all();
    let runtime = builder
        .build()
        .context("the threads of AWS calls cannot start")?;
    Ok(RUNTIME.get_or_init(|| runtime))
}

async fn load(access: Access) -> SdkConfig {
    let https = HttpBuilder::new()
        .tls_provider(Provider::Rustls(CryptoMode::Ring))
        .build_https();
    let timeouts = TimeoutConfig::builder().connect_timeout(CONNECT).build();
    let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
        .http_client(https)
        // In code, so that no variable of the environment turns it on.
        .retry_config(RetryConfig::disabled())
        .timeout_config(timeouts)
        // A slow link is no fault; the time-out of an attempt goes by its bytes.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
    if let Some(region) = access.region {
        loader = loader.region(Region::new(region));
    }
    if let Some(endpoint) = access.endpoint {
        loader = loader.endpoint_url(endpoint);
    }
    if let Some(profile) = access.profile {
        loader = loader.profile_name(profile);
    }
    loader.load().await
}

/// How long a call of so many bytes may take.
fn timeouts(records: &[Record]) -> TimeoutConfig {
    let bytes: usize = records.iter().map(|record| record.bytes.len()).sum();
    // Records travel in base64.
    let travel = Duration::from_secs(bytes as u64 * 4 / 3 / SLOWEST_BYTES_S);
    TimeoutConfig::builder()
        .operation_attempt_timeout(ANSWER + travel)
        .build()
}

/// The outcome of a call that an error of the SDK tells of.
fn answer_of<E>(error: &SdkError<E>) -> Answer
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    if let SdkError::ServiceError(service) = error {
        let meta = service.err().meta();
        return Fault {
            code: meta.code().unwrap_or_default(),
            message: meta.message().unwrap_or_default(),
            status: service.raw().status().as_u16(),
        }
        .answer();
    }
    let cause = chain(error);
    if cause.contains("no credentials") || cause.contains("CredentialsNotLoaded") {
        return Answer::Denied {
            // The rest lists every place that was looked at.
            cause: cause.lines().next().unwrap_or_default().to_owned(),
            remedy: NO_CREDENTIALS.to_owned(),
        };
    }
    if matches!(error, SdkError::ConstructionFailure(_)) {
        return Answer::Denied {
            cause,
            remedy: "see to region, endpoint and profile of this sink".to_owned(),
        };
    }
    // It may have been carried out before the connection broke.
    Answer::Unknown { cause }
}

/// Carries out a call on the runtime of AWS. Whoever waits for it may go: the call goes on.
async fn call(future: impl Future<Output = Answer> + Send + 'static) -> Answer {
    let running = match runtime() {
        Ok(runtime) => runtime.spawn(future),
        Err(error) => {
            return Answer::Unknown {
                cause: format!("{error:#}"),
            };
        }
    };
    running.await.unwrap_or_else(|error| Answer::Unknown {
        cause: format!("the call ended early: {error}"),
    })
}

/// A client that is made with the first call, and again after one that was denied: credentials, region and profile
/// may need the network, and an operator may have changed them.
#[derive(Debug)]
struct Late<C>(Arc<Mutex<Option<C>>>);

impl<C> Default for Late<C> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<C> Clone for Late<C> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<C: Client> Late<C> {
    async fn get(&self, access: Access) -> Result<C, Answer> {
        let mut client = self.0.lock().await;
        if let Some(client) = &*client {
            return Ok(client.clone());
        }
        let config = load(access).await;
        let endpoint = config.endpoint_url().unwrap_or_default();
        if let Some(problem) = endpoint_problem(endpoint) {
            return Err(Answer::Denied {
                cause: format!(
                    "the endpoint {endpoint}, of the environment or the profile, {problem}"
                ),
                remedy: "change AWS_ENDPOINT_URL or the profile".to_owned(),
            });
        }
        if config.region().is_none() {
            return Err(Answer::Denied {
                cause: "no region is known".to_owned(),
                remedy: "set region for this sink, or AWS_REGION".to_owned(),
            });
        }
        Ok(client.insert(C::new(&config)).clone())
    }

    /// Takes note of a call's answer.
    async fn heard(&self, answer: Answer) -> Answer {
        if matches!(answer, Answer::Denied { .. }) {
            *self.0.lock().await = None;
        }
        answer
    }
}

/// The client of a streaming service, and its one call.
pub(super) trait Client: Clone + Send + Sync + 'static {
    fn new(config: &SdkConfig) -> Self;

    /// Sends records to a stream.
    ///
    /// - `timeouts`: how long the call may take.
    fn put(
        &self,
        stream: String,
        records: Vec<Record>,
        timeouts: TimeoutConfig,
    ) -> impl Future<Output = Answer> + Send;
}

pub(super) use aws_sdk_firehose::Client as Firehose;
pub(super) use aws_sdk_kinesis::Client as Kinesis;

/// A stream of a service.
struct Stream<C> {
    stream: String,
    access: Access,
    client: Late<C>,
}

impl<C: Client> Stream<C> {
    fn new(place: Place) -> Result<Self> {
        runtime()?;
        Ok(Self {
            stream: place.stream,
            access: place.access,
            client: Late::default(),
        })
    }
}

impl<C: Client> Service for Stream<C> {
    fn put(&mut self, records: Vec<Record>) -> impl Future<Output = Answer> + Send {
        let stream = self.stream.clone();
        let (access, late) = (self.access.clone(), self.client.clone());
        call(async move {
            let client = match late.get(access).await {
                Ok(client) => client,
                Err(denied) => return denied,
            };
            let timeouts = timeouts(&records);
            late.heard(client.put(stream, records, timeouts).await)
                .await
        })
    }

    fn limits(&self) -> CallLimits {
        CallLimits {
            records: CALL_RECORDS,
            bytes: CALL_BYTES,
        }
    }
}

impl Client for Kinesis {
    fn new(config: &SdkConfig) -> Self {
        Self::new(config)
    }

    async fn put(&self, stream: String, records: Vec<Record>, timeouts: TimeoutConfig) -> Answer {
        let entry = |record: Record| {
            PutRecordsRequestEntry::builder()
                .partition_key(&*record.key)
                .data(KinesisBlob::new(record.bytes))
                .build()
        };
        let entries: Vec<_> = match records.into_iter().map(entry).collect() {
            Ok(entries) => entries,
            Err(error) => return unfit(&error),
        };
        let put = self.put_records().stream_name(stream);
        let put = put.set_records(Some(entries)).customize();
        let config = aws_sdk_kinesis::config::Config::builder().timeout_config(timeouts);
        match put.config_override(config).send().await {
            Ok(output) => {
                let each = output.records().iter();
                let each = each.map(|r| item(r.error_code(), r.error_message()));
                Answer::Each(each.collect())
            }
            Err(error) => answer_of(&error),
        }
    }
}

impl Client for Firehose {
    fn new(config: &SdkConfig) -> Self {
        Self::new(config)
    }

    async fn put(&self, stream: String, records: Vec<Record>, timeouts: TimeoutConfig) -> Answer {
        let entry = |record: Record| {
            FirehoseRecord::builder()
                .data(FirehoseBlob::new(record.bytes))
                .build()
        };
        let entries: Vec<_> = match records.into_iter().map(entry).collect() {
            Ok(entries) => entries,
            Err(error) => return unfit(&error),
        };
        let put = self.put_record_batch().delivery_stream_name(stream);
        let put = put.set_records(Some(entries)).customize();
        let config = aws_sdk_firehose::config::Config::builder().timeout_config(timeouts);
        match put.config_override(config).send().await {
            Ok(output) => {
                let each = output.request_responses().iter();
                let each = each.map(|r| item(r.error_code(), r.error_message()));
                Answer::Each(each.collect())
            }
            Err(error) => answer_of(&error),
        }
    }
}

/// The SDK takes a record not as it is.
fn unfit(error: &BuildError) -> Answer {
    Answer::Refused {
        cause: chain(error),
    }
}

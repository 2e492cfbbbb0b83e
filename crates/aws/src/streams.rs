//! Kinesis and Firehose: one call of each.

use std::sync::Arc;

use anyhow::Result;
use aws_config::SdkConfig;
use aws_sdk_firehose::primitives::Blob as FirehoseBlob;
use aws_sdk_firehose::types::Record as FirehoseRecord;
use aws_sdk_kinesis::error::BuildError;
use aws_sdk_kinesis::primitives::Blob as KinesisBlob;
use aws_sdk_kinesis::types::PutRecordsRequestEntry;
use bytes::Bytes;
use headwater_program::chain::chain;

use crate::access::Access;
use crate::set_up::{Late, Made, runtime, timeouts};
use crate::trouble::Trouble;

/// A streaming service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// Data streams: `PutRecords`.
    Kinesis,
    /// Delivery streams: `PutRecordBatch`.
    Firehose,
}

/// The outcome of one record of a call that succeeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// The service's code, if it failed.
    pub code: Option<String>,
    /// Its words.
    pub message: Option<String>,
}

/// A stream of a service.
#[derive(Debug, Clone)]
pub struct Streams {
    service: Service,
    stream: String,
    access: Access,
    clients: Late<Clients>,
}

#[derive(Debug, Clone)]
struct Clients {
    kinesis: aws_sdk_kinesis::Client,
    firehose: aws_sdk_firehose::Client,
}

impl Made for Clients {
    const SERVICES: &[&str] = &["Kinesis", "Firehose"];

    fn made(config: &SdkConfig, _: &Access) -> Self {
        Self {
            kinesis: aws_sdk_kinesis::Client::new(config),
            firehose: aws_sdk_firehose::Client::new(config),
        }
    }
}

impl Streams {
    /// The stream of that name. Nothing is asked of the service yet.
    ///
    /// # Errors
    /// When the threads of AWS calls cannot start.
    pub fn new(service: Service, stream: String, access: Access) -> Result<Self> {
        runtime()?;
        Ok(Self {
            service,
            stream,
            access,
            clients: Late::default(),
        })
    }

    /// Sends records, each a key and its bytes, in one call on the runtime of AWS. Whoever waits for it may go: the
    /// call goes on.
    ///
    /// # Errors
    /// [`Trouble`]. Success says nothing of the records; each has its [`Item`], in their order.
    pub async fn put(&self, records: Vec<(Arc<str>, Bytes)>) -> Result<Vec<Item>, Trouble> {
        let unknown = |cause| Trouble::Unknown { cause };
        let runtime = runtime().map_err(|error| unknown(format!("{error:#}")))?;
        let stream = self.clone();
        let call = runtime.spawn(async move {
            let clients = stream.clients.get(&stream.access).await?;
            match stream.service {
                Service::Kinesis => clients.put_to_kinesis(stream.stream, records).await,
                Service::Firehose => clients.put_to_firehose(stream.stream, records).await,
            }
        });
        let ended = |error| unknown(format!("the call ended early: {error}"));
        call.await.map_err(ended)?
    }

    /// The next call begins with new credentials: an operator may have changed them.
    pub async fn renew(&self) {
        self.clients.forget().await;
    }
}

impl Clients {
    async fn put_to_kinesis(
        self,
        stream: String,
        records: Vec<(Arc<str>, Bytes)>,
    ) -> Result<Vec<Item>, Trouble> {
        let within = timeouts(bytes_of(&records));
        let entries = records.into_iter().map(|(key, bytes)| {
            PutRecordsRequestEntry::builder()
                .partition_key(&*key)
                .data(KinesisBlob::new(bytes))
                .build()
        });
        let entries = entries.collect::<Result<_, _>>().map_err(|e| unfit(&e))?;
        let put = self.kinesis.put_records().stream_name(stream);
        let put = put.set_records(Some(entries)).customize();
        let config = aws_sdk_kinesis::config::Config::builder().timeout_config(within);
        let sent = put.config_override(config).send().await;
        let output = sent.map_err(|error| Trouble::of(&error))?;
        let each = output.records.into_iter().map(|record| Item {
            code: record.error_code,
            message: record.error_message,
        });
        Ok(each.collect())
    }

    async fn put_to_firehose(
        self,
        stream: String,
        records: Vec<(Arc<str>, Bytes)>,
    ) -> Result<Vec<Item>, Trouble> {
        let within = timeouts(bytes_of(&records));
        let entries = records.into_iter().map(|(_, bytes)| {
            FirehoseRecord::builder()
                .data(FirehoseBlob::new(bytes))
                .build()
        });
        let entries = entries.collect::<Result<_, _>>().map_err(|e| unfit(&e))?;
        let put = self
            .firehose
            .put_record_batch()
            .delivery_stream_name(stream);
        let put = put.set_records(Some(entries)).customize();
        let config = aws_sdk_firehose::config::Config::builder().timeout_config(within);
        let sent = put.config_override(config).send().await;
        let output = sent.map_err(|error| Trouble::of(&error))?;
        let each = output.request_responses.into_iter().map(|record| Item {
            code: record.error_code,
            message: record.error_message,
        });
        Ok(each.collect())
    }
}

/// Bytes that records are on their way: they travel in base64.
fn bytes_of(records: &[(Arc<str>, Bytes)]) -> usize {
    records.iter().map(|(_, bytes)| bytes.len() * 4 / 3).sum()
}

/// The SDK takes a record not as it is, nor would the service.
fn unfit(error: &BuildError) -> Trouble {
    Trouble::Answered {
        code: "ValidationException".to_owned(),
        message: chain(error),
        status: 400,
        region: None,
    }
}

//! The set-up of the AWS SDK: one runtime, one way to load a configuration, one reading of its errors.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context as _, Result};
use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_kinesis::config::http::HttpResponse;
use aws_sdk_kinesis::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_http_client::Builder as HttpBuilder;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use aws_types::service_config::ServiceConfigKey;
use headwater_program::chain::chain;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Mutex;

use crate::access::{Access, endpoint_problem};
use crate::trouble::Trouble;

/// Threads that carry out calls, apart from the gate's.
const THREADS: usize = 1;
/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(4);
/// Longest wait for an answer, beside the time that its bytes take.
pub(crate) const ANSWER: Duration = Duration::from_secs(10);
/// Bytes a second of the slowest link that a call gets through on.
const SLOWEST_BYTES_S: u64 = 32 << 10;

/// The remedy where the SDK found no credentials.
const NO_CREDENTIALS: &str = "give the collector credentials: a role of the machine or container, \
     AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile with keys or a role (profiles that need a login by \
     browser or a credential_process are not supported); off EC2, AWS_EC2_METADATA_DISABLED=true spares the wait";

/// The runtime of all calls; it lives as long as the program.
pub(crate) fn runtime() -> Result<&'static Runtime> {
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

async fn load(access: &Access) -> SdkConfig {
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
    if let Some(region) = &access.region {
        loader = loader.region(Region::new(region.clone()));
    }
    if let Some(endpoint) = &access.endpoint {
        loader = loader.endpoint_url(endpoint);
    }
    if let Some(profile) = &access.profile {
        loader = loader.profile_name(profile);
    }
    loader.load().await
}

/// How long a call may take that moves so many bytes.
pub(crate) fn timeouts(bytes: usize) -> TimeoutConfig {
    let travel = Duration::from_secs(bytes as u64 / SLOWEST_BYTES_S);
    TimeoutConfig::builder()
        .operation_attempt_timeout(ANSWER + travel)
        .build()
}

impl Trouble {
    /// Of an error of the SDK.
    pub(crate) fn of<E>(error: &SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        if let SdkError::ServiceError(service) = error {
            let (meta, raw) = (service.err().meta(), service.raw());
            return Self::Answered {
                code: meta.code().unwrap_or_default().to_owned(),
                message: meta.message().unwrap_or_default().to_owned(),
                status: raw.status().as_u16(),
                region: raw.headers().get("x-amz-bucket-region").map(str::to_owned),
            };
        }
        let cause = chain(error);
        if cause.contains("no credentials") || cause.contains("CredentialsNotLoaded") {
            return Self::Unfit {
                // The rest lists every place that was looked at.
                cause: cause.lines().next().unwrap_or_default().to_owned(),
                remedy: NO_CREDENTIALS.to_owned(),
            };
        }
        if matches!(error, SdkError::ConstructionFailure(_)) {
            return Self::Unfit {
                cause,
                remedy: "see to region, endpoint and profile of this sink".to_owned(),
            };
        }
        Self::Unknown { cause }
    }
}

/// Where services are called, if not at AWS itself: as for each of them, or for all. Of several the one with a fault.
pub(crate) fn endpoint_of(config: &SdkConfig, services: &[&str]) -> Option<String> {
    let own = |service: &&str| {
        let key = ServiceConfigKey::builder().service_id(service);
        let key = key.env("AWS_ENDPOINT_URL").profile("endpoint_url");
        config.service_config()?.load_config(key.build().ok()?)
    };
    // One in code comes first, and is as it was checked; the SDK asks for each service then.
    let all = config.endpoint_url().map(str::to_owned);
    let mut found: Vec<String> = services.iter().filter_map(own).chain(all).collect();
    found.sort_by_key(|endpoint| endpoint_problem(endpoint).is_none());
    found.into_iter().next()
}

/// A service's client.
pub(crate) trait Made: Clone + Send + Sync + 'static {
    /// The services that it calls, as AWS names them.
    const SERVICES: &[&str];

    /// - `access`: whose configuration it is.
    fn made(config: &SdkConfig, access: &Access) -> Self;
}

/// A client that is made with the first call, and again after one that was denied: credentials, region and profile
/// may need the network, and an operator may have changed them.
#[derive(Debug)]
pub(crate) struct Late<C>(Arc<Mutex<Option<C>>>);

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

impl<C: Made> Late<C> {
    /// # Errors
    /// [`Trouble::Unfit`].
    pub(crate) async fn get(&self, access: &Access) -> Result<C, Trouble> {
        let mut client = self.0.lock().await;
        if let Some(client) = &*client {
            return Ok(client.clone());
        }
        let config = load(access).await;
        let endpoint = endpoint_of(&config, C::SERVICES).unwrap_or_default();
        if let Some(problem) = endpoint_problem(&endpoint) {
            return Err(Trouble::Unfit {
                cause: format!(
                    "the endpoint {endpoint}, of the environment or the profile, {problem}"
                ),
                remedy: "change AWS_ENDPOINT_URL or the profile".to_owned(),
            });
        }
        if config.region().is_none() {
            return Err(Trouble::Unfit {
                cause: "no region is known".to_owned(),
                remedy: "set region for this sink, or AWS_REGION".to_owned(),
            });
        }
        Ok(client.insert(C::made(&config, access)).clone())
    }

    /// A client that a test has made.
    #[cfg(test)]
    pub(crate) async fn set(&self, client: C) {
        *self.0.lock().await = Some(client);
    }

    /// A call was denied: the next one begins anew.
    pub(crate) async fn forget(&self) {
        // A test has no other client than the one that it gave.
        if !cfg!(test) {
            *self.0.lock().await = None;
        }
    }
}

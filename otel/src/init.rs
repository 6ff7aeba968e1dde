//! Installs the process's subscriber once, and flushes its spans within a bounded time at the end.
//!
//! Owns the log and span filters and the export's limits. Never blocks a service on a collector that hangs.

use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider};
use tracing_subscriber::filter::{FilterExt as _, LevelFilter, Targets, filter_fn};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

use crate::OtelSettings;

/// Spans waiting for export. The SDK's 2,048 overflow in a burst of one gateway: 16,384 spans are some 10 MB.
const QUEUE_SPANS: usize = 16_384;
/// Spans in one export call.
const BATCH_SPANS: usize = 1_024;
/// One export call. A collector that takes longer is as good as away.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(3);
/// The last flush, at shutdown: short, as the process's grace period is for its clients and not for its spans.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(3);

/// Why the subscriber was not installed. All of these are the operator's to mend.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    #[error("MT_LOG holds no valid directives")]
    Filter(#[source] tracing_subscriber::filter::ParseError),
    #[error("MT_OTLP_ENDPOINT is not usable")]
    Exporter(#[source] ExporterBuildError),
    #[error("a subscriber is installed already")]
    Installed(#[source] tracing_subscriber::util::TryInitError),
}

/// Keeps the export alive; dropped last in `main`, it flushes the spans that wait.
#[must_use = "spans are flushed when the guard is dropped"]
#[derive(Debug)]
pub struct Guard {
    provider: Option<SdkTracerProvider>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let Some(provider) = self.provider.take() else { return };
        if let Err(error) = provider.shutdown_with_timeout(FLUSH_TIMEOUT) {
            tracing::warn!(%error, "spans were not flushed");
        }
    }
}

/// Installs JSON logs on stdout and, if an endpoint is set, the export of spans.
///
/// Call it inside the service's multi-threaded runtime, and drop the guard there too: the exporter's connection
/// lives on that runtime.
pub fn init(service_name: &'static str, settings: &OtelSettings) -> Result<Guard, InitError> {
    let log_filter = EnvFilter::builder().parse(&settings.log).map_err(InitError::Filter)?;
    // A filter without a hint would have every `log::trace!` of every library asked about, on each frame.
    let loggable = filter_fn(is_loggable).with_max_level_hint(LevelFilter::TRACE);
    let logs = tracing_subscriber::fmt::layer().json().with_filter(log_filter.and(loggable));

    let provider = match &settings.otlp_endpoint {
        Some(endpoint) => Some(provider(service_name, endpoint, settings.trace_ratio)?),
        None => None,
    };
    let spans = provider.as_ref().map(|provider| {
        // Where in the source a span was made, and on which thread, is four attributes that nobody asked for.
        tracing_opentelemetry::layer()
            .with_tracer(provider.tracer(service_name))
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_filter(span_filter())
    });

    tracing_subscriber::registry().with(logs).with(spans).try_init().map_err(InitError::Installed)?;
    Ok(Guard { provider })
}

fn provider(service_name: &'static str, endpoint: &str, ratio: f64) -> Result<SdkTracerProvider, InitError> {
    let exporter = SpanExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .with_timeout(EXPORT_TIMEOUT)
        .build()
        .map_err(InitError::Exporter)?;
    let batch = BatchConfigBuilder::default()
        .with_max_queue_size(QUEUE_SPANS)
        .with_max_export_batch_size(BATCH_SPANS)
        .build();
    let resource = Resource::builder()
        .with_service_name(service_name)
        .with_attribute(KeyValue::new("service.namespace", "mini-telegram"))
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        // Jaeger and Prometheus tell two gateways apart by this alone.
        .with_attribute(KeyValue::new("service.instance.id", uuid::Uuid::now_v7().to_string()))
        .build();
    Ok(SdkTracerProvider::builder()
        .with_span_processor(BatchSpanProcessor::builder(exporter).with_batch_config(batch).build())
        .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(ratio))))
        .with_resource(resource)
        .build())
}

/// Whatever MT_LOG says: at trace level, tungstenite writes whole frames, with what users say to each other.
fn is_loggable(metadata: &tracing::Metadata<'_>) -> bool {
    !(metadata.target().starts_with("tungstenite") && *metadata.level() == tracing::Level::TRACE)
}

/// Spans do not depend on MT_LOG: a quiet log must not blind the traces. The exporter's own transport is left
/// out, or each export would make spans to export.
fn span_filter() -> Targets {
    Targets::new()
        .with_default(LevelFilter::INFO)
        .with_target("h2", LevelFilter::OFF)
        .with_target("hyper", LevelFilter::OFF)
        .with_target("hyper_util", LevelFilter::OFF)
        .with_target("opentelemetry", LevelFilter::OFF)
        .with_target("tonic", LevelFilter::OFF)
        .with_target("tower", LevelFilter::OFF)
}

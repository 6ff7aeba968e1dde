//! The W3C `traceparent` text of a span, for message headers: written from the current span, read into a new one.

use opentelemetry::propagation::{Extractor, TextMapPropagator as _};
use opentelemetry::trace::TraceContextExt as _;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

const TRACEPARENT: &str = "traceparent";

/// The current span as a `traceparent`, if it is sampled. An unsampled message carries no header: it would cost
/// 55 bytes in the log for ever and say nothing.
pub fn traceparent() -> Option<String> {
    let context = Span::current().context();
    let span = context.span();
    let span = span.span_context();
    (span.is_valid() && span.is_sampled())
        .then(|| format!("00-{}-{}-{:02x}", span.trace_id(), span.span_id(), span.trace_flags().to_u8()))
}

/// Makes `span` a child of the remote span that `traceparent` names. Text that is no traceparent changes nothing:
/// a trace is never worth a message. Only the first call before the span is entered has an effect.
pub fn set_parent(span: &Span, traceparent: &str) {
    let context = TraceContextPropagator::new().extract(&Header(traceparent));
    if !context.span().span_context().is_valid() {
        return;
    }
    if let Err(error) = span.set_parent(context) {
        tracing::trace!(%error, "the span keeps its own parent");
    }
}

/// Whether the sender of this text wants the trace to be recorded.
pub fn is_sampled(traceparent: &str) -> bool {
    let context = TraceContextPropagator::new().extract(&Header(traceparent));
    context.span().span_context().is_sampled()
}

/// A carrier of this one header.
struct Header<'a>(&'a str);

impl Extractor for Header<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        (key == TRACEPARENT).then_some(self.0)
    }

    fn keys(&self) -> Vec<&str> {
        vec![TRACEPARENT]
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::TracerProvider as _;
    use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    const REMOTE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn with_sampler<R>(sampler: Sampler, run: impl FnOnce() -> R) -> R {
        let provider = SdkTracerProvider::builder().with_sampler(sampler).build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), run)
    }

    #[test]
    fn a_sampled_span_is_written_and_an_unsampled_one_is_not() {
        let sampled = with_sampler(Sampler::AlwaysOn, || tracing::info_span!("s").in_scope(traceparent));
        assert!(sampled.is_some_and(|text| text.len() == 55 && text.ends_with("-01")));
        let unsampled = with_sampler(Sampler::AlwaysOff, || tracing::info_span!("s").in_scope(traceparent));
        assert_eq!(unsampled, None);
    }

    #[test]
    fn without_a_subscriber_there_is_no_traceparent() {
        assert_eq!(tracing::info_span!("s").in_scope(traceparent), None);
    }

    #[test]
    fn a_child_of_a_remote_span_keeps_its_trace() {
        let text = with_sampler(Sampler::ParentBased(Box::new(Sampler::AlwaysOff)), || {
            let span = tracing::info_span!("s");
            set_parent(&span, REMOTE);
            span.in_scope(traceparent)
        });
        let text = text.expect("the remote side sampled it");
        assert_eq!(text[..36], REMOTE[..36]);
        assert_ne!(text, REMOTE);
    }

    #[test]
    fn who_wants_a_trace_recorded_says_so_in_the_flags() {
        assert!(is_sampled(REMOTE));
        assert!(is_sampled(&REMOTE.replace("-01", "-03")), "other flags beside it");
        for text in [&REMOTE.replace("-01", "-00"), "", "01", "00-0-0-01"] {
            assert!(!is_sampled(text), "{text}");
        }
    }

    #[test]
    fn rubbish_changes_nothing() {
        for text in
            ["", "00", "zz-zz", "00-00000000000000000000000000000000-0000000000000000-01", "\u{1F600}"]
        {
            let written = with_sampler(Sampler::ParentBased(Box::new(Sampler::AlwaysOn)), || {
                let span = tracing::info_span!("s");
                set_parent(&span, text);
                span.in_scope(traceparent)
            });
            assert!(written.is_some(), "{text}");
        }
    }
}

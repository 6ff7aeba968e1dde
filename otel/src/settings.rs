//! The settings that every service shares. Flatten them into a service's own clap struct.

/// What is logged, and where spans go.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct OtelSettings {
    /// What is logged: a level, or directives such as `info,gateway=debug`.
    #[arg(long = "log", env = "MT_LOG", default_value = "info")]
    pub log: String,

    /// OTLP/gRPC address of a collector, such as http://127.0.0.1:4317. Unset: no spans are exported.
    #[arg(long = "otlp-endpoint", env = "MT_OTLP_ENDPOINT", hide_env_values = true)]
    pub otlp_endpoint: Option<String>,

    /// Share of new traces that are sampled, 0 to 1. A trace begun by another service keeps its own decision, one begun
    /// by a client only if it may force one.
    #[arg(long = "trace-ratio", env = "MT_TRACE_RATIO", default_value_t = 0.01, value_parser = ratio)]
    pub trace_ratio: f64,
}

impl Default for OtelSettings {
    fn default() -> Self {
        Self { log: "info".to_owned(), otlp_endpoint: None, trace_ratio: 0.01 }
    }
}

fn ratio(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(ratio) if (0.0..=1.0).contains(&ratio) => Ok(ratio),
        _ => Err("must be a number from 0 to 1".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::ratio;

    #[test]
    fn ratio_accepts_the_unit_interval_only() {
        for (text, ok) in
            [("0", true), ("1", true), ("0.25", true), ("1.1", false), ("-0.1", false), ("NaN", false)]
        {
            assert_eq!(ratio(text).is_ok(), ok, "{text}");
        }
    }
}

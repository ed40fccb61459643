//! Structured logs to stderr.

use clap::ValueEnum;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// For people.
    Text,
}

impl LogFormat {
    /// Installs the process's logger, to stderr. `RUST_LOG` overrides the default of `info`: a level, or levels by module,
    /// as in `info,webhook=debug`. (`EnvFilter` could filter by span and field, too, but its regular expressions cost every
    /// replica memory.)
    pub fn install(self) {
        let wanted = std::env::var("RUST_LOG").ok().and_then(|directives| directives.parse().ok());
        let filter = wanted.unwrap_or_else(|| Targets::new().with_default(LevelFilter::INFO));
        let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
        let lines = match self {
            Self::Json => lines.json().flatten_event(true).with_filter(filter).boxed(),
            Self::Text => lines.with_filter(filter).boxed(),
        };
        tracing_subscriber::registry().with(lines).init();
    }
}

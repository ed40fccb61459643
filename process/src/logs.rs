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
        self.install_quietly(&[]);
    }

    /// The same; of `quiet`, modules of libraries, only errors are logged unless `RUST_LOG` says otherwise.
    pub fn install_quietly(self, quiet: &[&str]) {
        let wanted = std::env::var("RUST_LOG").ok().and_then(|directives| directives.parse().ok());
        let filter = wanted.unwrap_or_else(|| default_levels(quiet));
        let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
        let lines = match self {
            Self::Json => lines.json().flatten_event(true).with_filter(filter).boxed(),
            Self::Text => lines.with_filter(filter).boxed(),
        };
        tracing_subscriber::registry().with(lines).init();
    }
}

fn default_levels(quiet: &[&str]) -> Targets {
    let quiet = quiet.iter().map(|target| (*target, LevelFilter::ERROR));
    Targets::new().with_default(LevelFilter::INFO).with_targets(quiet)
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn quiet_modules_log_errors_only() {
        let levels = default_levels(&["aws_config"]);
        for (target, level, logged) in [
            ("operator::driver", Level::INFO, true),
            ("operator::driver", Level::DEBUG, false),
            ("aws_config::meta::credentials::chain", Level::WARN, false),
            ("aws_config::web_identity_token", Level::ERROR, true),
        ] {
            assert_eq!(levels.would_enable(target, &level), logged, "{target} {level}");
        }
    }
}

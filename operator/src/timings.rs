//! PURE: every wait and period of the operator, each under one name: a flag of `operator run` and a chart value.

use std::time::Duration;

use clap::Args;
use humantime::parse_duration;

/// Waits and periods. Flags are the field names with hyphens and take durations such as `90s`, `5m`, `1h`.
#[derive(Debug, Clone, Args)]
pub struct Timings {
    /// How often the API server's issuer and keys are read.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = parse_duration)]
    pub api_server_poll: Duration,
    /// How often bucket, documents and provider are read back.
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = parse_duration)]
    pub issuer_resync: Duration,
    /// How often a role's trust, boundary and attachments are read back.
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = parse_duration)]
    pub role_resync: Duration,
    /// How often a real token is exchanged while all is well.
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = parse_duration)]
    pub verify_period: Duration,
    /// How soon a failed verification is repeated; evidence against a Ready issuer must stand that long.
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = parse_duration)]
    pub verify_retry: Duration,
    /// How long after an own write or a start of the process "not yet" is a fair answer of AWS.
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = parse_duration)]
    pub not_yet_window: Duration,
    /// How often AWS is asked again inside that window.
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = parse_duration)]
    pub not_yet_retry: Duration,
    /// How long the answer to "which account and role are our credentials of" is used.
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = parse_duration)]
    pub identity_refresh: Duration,
    /// How long a binding waits for its grant before it is Stalled.
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = parse_duration)]
    pub grant_grace: Duration,
    /// How long a second binding on a `ServiceAccount` waits before it is Stalled.
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = parse_duration)]
    pub conflict_grace: Duration,
    /// Limit of one reconcile; an unanswered request would otherwise hold its object for ever.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = parse_duration)]
    pub reconcile_timeout: Duration,
    /// First wait after a failure; doubles with every further one.
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = parse_duration)]
    pub backoff_min: Duration,
    /// Longest wait after failures.
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = parse_duration)]
    pub backoff_max: Duration,
    /// How long a leader's lease is honoured after its last sign of life.
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = parse_duration)]
    pub lease_duration: Duration,
    /// How often the leader gives a sign of life.
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = parse_duration)]
    pub lease_renew: Duration,
    /// How often the others look.
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = parse_duration)]
    pub lease_retry: Duration,
    /// How long running reconciles may take to end after SIGTERM.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_duration)]
    pub shutdown_grace: Duration,
    /// Life of the webhook's CA, at most 365 days.
    #[arg(long, value_name = "DURATION", default_value = "8760h", value_parser = parse_duration)]
    pub ca_life: Duration,
    /// Life of the webhook's serving certificate, at most 7 days.
    #[arg(long, value_name = "DURATION", default_value = "168h", value_parser = parse_duration)]
    pub leaf_life: Duration,
    /// How often the certificates' remaining life is looked at.
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = parse_duration)]
    pub certificate_check: Duration,
    /// Limit of one attempt of one AWS call.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_duration)]
    pub aws_call_timeout: Duration,
    /// Limit of one anonymous read; AWS STS gives up after 5 s, too.
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = parse_duration)]
    pub public_read_timeout: Duration,
}

impl Timings {
    /// Refuses values that stop the operator from working together with themselves; the words name the flags.
    pub fn check(&self) -> Result<(), String> {
        const HOUR: Duration = Duration::from_hours(1);
        // The pod's terminationGracePeriodSeconds is 30.
        const LONGEST_GRACE: Duration = Duration::from_secs(25);
        let rules = [
            // A leader gives up at `lease_duration` less one renewal, and looks every half renewal.
            (
                self.lease_renew * 3 < self.lease_duration * 2,
                "--lease-renew must be less than two thirds of --lease-duration",
            ),
            // Certificates are renewed at two thirds of their life, which begins an hour before they are made.
            (self.leaf_life >= 2 * HOUR, "--leaf-life must be at least 2h"),
            (self.ca_life >= self.leaf_life, "--ca-life must not be less than --leaf-life"),
            (
                self.certificate_check * 3 <= self.leaf_life,
                "--certificate-check must be at most a third of --leaf-life",
            ),
            (self.backoff_min <= self.backoff_max, "--backoff-min must not be more than --backoff-max"),
            (
                self.shutdown_grace <= LONGEST_GRACE,
                "--shutdown-grace must be at most 25s: the pod is killed at 30s",
            ),
        ];
        rules.iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, says)| Err((*says).to_owned()))
    }
}

impl Default for Timings {
    fn default() -> Self {
        #[derive(clap::Parser)]
        struct Flags {
            #[command(flatten)]
            timings: Timings,
        }
        // Every field has a default, so there is nothing that could fail to parse.
        <Flags as clap::Parser>::parse_from(["operator"]).timings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_stop_the_operator_are_refused_with_their_flag() {
        type Change = fn(&mut Timings);
        assert_eq!(Timings::default().check(), Ok(()));
        let table: [(Change, &str); 6] = [
            (|t| t.lease_renew = Duration::from_secs(10), "--lease-renew"),
            (|t| t.leaf_life = Duration::from_mins(30), "--leaf-life"),
            (|t| t.ca_life = Duration::from_hours(3), "--ca-life"),
            (|t| t.certificate_check = Duration::from_hours(100), "--certificate-check"),
            (|t| t.backoff_min = Duration::from_hours(1), "--backoff-min"),
            (|t| t.shutdown_grace = Duration::from_mins(1), "--shutdown-grace"),
        ];
        for (change, flag) in table {
            let mut timings = Timings::default();
            change(&mut timings);
            let refused = timings.check().expect_err(flag);
            assert!(refused.starts_with(flag), "{refused}");
        }
    }
}

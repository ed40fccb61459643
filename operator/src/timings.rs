//! PURE: every timeout and period of the operator. Each is a flag of `operator run` and a chart value of the same name.

use std::time::Duration;

use clap::Args;
use humantime::parse_duration;

/// Timeouts and periods. Flags are the field names with hyphens and take durations such as `90s`, `5m`, `1h`.
#[derive(Debug, Clone, Args)]
pub struct Timings {
    /// How often the API server's issuer and signing keys are read.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = parse_duration)]
    pub api_server_poll: Duration,
    /// Timeout of one of these reads: an API server that is out of reach delays nothing else.
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = parse_duration)]
    pub api_server_timeout: Duration,
    /// How long one of several API servers is out of reach before the keys that the others show are taken for all keys: one that
    /// restarts is out of reach, too.
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = parse_duration)]
    pub api_server_absence: Duration,
    /// How often bucket, documents and OIDC provider are compared with the specification.
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = parse_duration)]
    pub issuer_resync: Duration,
    /// How often a role is read whole, with its permissions boundary, tags and policies, and compared with the specification.
    #[arg(long, value_name = "DURATION", default_value = "6h", value_parser = parse_duration)]
    pub role_resync: Duration,
    /// How often the roles under the cluster's path are listed: to find those whose trust policy, session limit or description has
    /// changed, and those without a binding.
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = parse_duration)]
    pub role_sweep: Duration,
    /// How often a token of the cluster is exchanged at AWS STS while this succeeds.
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = parse_duration)]
    pub verify_period: Duration,
    /// How soon a failed verification is repeated; a Ready issuer is not Ready once it has failed for that long.
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = parse_duration)]
    pub verify_retry: Duration,
    /// How long after a write or a start of the operator a failed check is treated as propagation delay: changes in AWS take
    /// effect after some seconds.
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = parse_duration)]
    pub not_yet_window: Duration,
    /// How often the check is repeated within `--not-yet-window`.
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = parse_duration)]
    pub not_yet_retry: Duration,
    /// How long after a role or a provider was made, or after a start of the operator, IAM's answer that there is none has to be given
    /// twice before it counts: IAM is eventually consistent.
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = parse_duration)]
    pub role_settling: Duration,
    /// How far apart these two answers are at least.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = parse_duration)]
    pub role_confirmation: Duration,
    /// How long the account and the role of the operator's credentials are cached.
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = parse_duration)]
    pub identity_refresh: Duration,
    /// How long a binding waits for a grant before it is Stalled.
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = parse_duration)]
    pub grant_grace: Duration,
    /// How long a role whose rights no grant covers any more keeps them before it is revoked.
    #[arg(long, value_name = "DURATION", default_value = "15m", value_parser = parse_duration)]
    pub grant_loss: Duration,
    /// How often annotations of a `ServiceAccount` that somebody has removed are put back at most.
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = parse_duration)]
    pub annotation_retry: Duration,
    /// The least time between two wakes of a binding by changes of its pods.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = parse_duration)]
    pub missing_period: Duration,
    /// How long a second binding of a `ServiceAccount` waits for the first to be deleted before it is Stalled.
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = parse_duration)]
    pub conflict_grace: Duration,
    /// Timeout of one reconcile; without it a request that gets no response would stop the object's reconciles for ever.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = parse_duration)]
    pub reconcile_timeout: Duration,
    /// How often an issuer is tried while the operator has no valid credentials: all calls share one exchange of its token, and
    /// the issuer's success wakes its bindings.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_duration)]
    pub credentials_retry: Duration,
    /// Delay of the retry after a first failure; it doubles with every further failure.
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = parse_duration)]
    pub backoff_min: Duration,
    /// Longest delay of a retry.
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = parse_duration)]
    pub backoff_max: Duration,
    /// How long the leader election's lease is valid after its last renewal.
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = parse_duration)]
    pub lease_duration: Duration,
    /// Timeout of one renewal of the lease; the leader waits half of it between two renewals.
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = parse_duration)]
    pub lease_renew: Duration,
    /// How often a replica that is not the leader tries to acquire the lease.
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = parse_duration)]
    pub lease_retry: Duration,
    /// How long running reconciles may take after SIGTERM.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_duration)]
    pub shutdown_grace: Duration,
    /// Lifetime of the webhook's CA certificate, at most 365 days.
    #[arg(long, value_name = "DURATION", default_value = "8760h", value_parser = parse_duration)]
    pub ca_life: Duration,
    /// Lifetime of the webhook's serving certificate, at most 7 days.
    #[arg(long, value_name = "DURATION", default_value = "168h", value_parser = parse_duration)]
    pub leaf_life: Duration,
    /// How often the remaining lifetime of both certificates is checked.
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = parse_duration)]
    pub certificate_check: Duration,
    /// Timeout of one attempt of one AWS call.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_duration)]
    pub aws_call_timeout: Duration,
    /// Timeout of one anonymous read of a published document; AWS STS has a timeout of 5 s, too.
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = parse_duration)]
    pub public_read_timeout: Duration,
}

impl Timings {
    /// How soon an object that is not as specified is looked at again, if nothing wakes it before.
    #[must_use]
    pub fn look_again(&self) -> Duration {
        self.role_resync.min(self.role_sweep)
    }

    /// Refuses combinations of values with which the operator cannot work. The error names the flag.
    pub fn check(&self) -> Result<(), String> {
        const HOUR: Duration = Duration::from_hours(1);
        // The pod's terminationGracePeriodSeconds is 30; the rest is for the release of the lease.
        const LONGEST_GRACE: Duration = Duration::from_secs(25);
        let rules = [
            // A leader stops at `lease_duration` less one `lease_renew`, and renews every half `lease_renew`.
            (
                self.lease_renew * 3 < self.lease_duration * 2,
                "--lease-renew must be less than two thirds of --lease-duration",
            ),
            // Certificates are renewed at two thirds of their lifetime, which begins an hour before they are created.
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
        rules.iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, message)| Err((*message).to_owned()))
    }
}

impl Default for Timings {
    fn default() -> Self {
        #[derive(clap::Parser)]
        struct Flags {
            #[command(flatten)]
            timings: Timings,
        }
        // Every flag has a default, so that parsing cannot fail.
        <Flags as clap::Parser>::parse_from(["operator"]).timings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unusable_values_are_refused_and_the_error_names_the_flag() {
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

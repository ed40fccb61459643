//! The plans of both kinds as tables: from what was observed to what is done and said. No cluster, no AWS.

mod bindings;
mod issuers;
mod keys;
mod rotation;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crds::condition::{ConditionType as C, Holds, Wanted};
use crds::names::{self, annotation};
use crds::{Finding, OidcIssuer, OidcIssuerSpec, PodIdentityBinding, PodIdentityBindingSpec, Reason};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use operator::api_servers::model::{ApiServer, ApiServers};
use operator::aws::error::{AwsError, Class};
use operator::aws::model::{
    Bucket, CACHE_CONTROL, CONTENT_TYPE, IamWrite, Identity, Object, Provider, Role, RolePolicies, Write,
};
use operator::change::Change;
use operator::clock::Clock;
use operator::model::{Next, ObjectState};
use operator::oidc::{Documents, Keys};
use operator::timings::Timings;
use operator::{binding, issuer};
use serde_json::json;

use crate::world::{ACCOUNT, QUEUE, STORAGE};

const OTHER: &str = "https://kubernetes.default.svc.cluster.local";

fn aws_error(class: Class) -> AwsError {
    let text = || "test".to_owned();
    AwsError {
        class,
        operation: "iam:GetRole",
        resource: text(),
        code: text(),
        cause: None,
        message: text(),
        detail: text(),
    }
}

fn issuer_spec() -> OidcIssuerSpec {
    serde_json::from_value(json!({
        "clusterName": "homelab",
        "s3": {"bucket": "oidc-111122223333-eu-central-1-an", "region": "eu-central-1"},
        "grants": [{"name": "vault", "namespaces": {"names": ["vault"]}, "policyARNs": [STORAGE, QUEUE]}],
    }))
    .unwrap()
}

fn clock() -> Clock {
    let instant = Instant::now();
    let started = instant.checked_sub(Duration::from_hours(1)).unwrap();
    Clock { instant, wall: Timestamp::from_second(1_800_000_000).unwrap(), started }
}

/// Ready's status and reason, and the companion beside it.
fn summary(conditions: &[Wanted]) -> String {
    let of = |type_: C| conditions.iter().find(|w| w.type_ == type_);
    let ready = of(C::Ready).unwrap();
    let status = if ready.holds == Holds::True { "True" } else { "False" };
    let companion = [C::Reconciling, C::Stalled].into_iter().find(|t| of(*t).is_some()).map_or("", C::as_str);
    format!("{status} {} {companion}", ready.finding.reason.as_str()).trim().to_owned()
}

/// All other conditions in the order of the status: `+` for True, `-` for False, `?` for Unknown, `=` for what it was before.
fn verdicts(conditions: &[Wanted]) -> String {
    let summary = [C::Ready, C::Reconciling, C::Stalled];
    let verdict = |wanted: &Wanted| {
        let sign = match wanted.holds {
            Holds::True => '+',
            Holds::False => '-',
            Holds::Unknown => '?',
            Holds::AsBefore => '=',
        };
        let name = match wanted.type_ {
            C::AWSReachable | C::AudiencesSeparate => wanted.type_.as_str(),
            _ => "",
        };
        format!("{name}{sign}{}", wanted.finding.reason.as_str())
    };
    let others = conditions.iter().filter(|wanted| !summary.contains(&wanted.type_));
    others.map(verdict).collect::<Vec<_>>().join(" ")
}

/// The types of all conditions but `AWSReachable`, in order.
fn types(conditions: &[Wanted]) -> Vec<C> {
    let beside = [C::Ready, C::Reconciling, C::Stalled, C::AWSReachable, C::AudiencesSeparate];
    conditions.iter().map(|wanted| wanted.type_).filter(|type_| !beside.contains(type_)).collect()
}

//! The plans of both kinds as tables: from what was observed to what is done and said. No cluster, no AWS.

mod bindings;
mod issuers;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crds::condition::{ConditionType as C, Wanted};
use crds::names::{self, annotation};
use crds::{OidcIssuerSpec, PodIdentityBindingSpec};
use operator::aws::iam::{Provider, Role};
use operator::aws::s3::{CACHE_CONTROL, CONTENT_TYPE, Object};
use operator::aws::{AwsError, Class, Identity};
use operator::oidc::{Documents, Keys};
use operator::timings::Timings;
use operator::{binding, issuer};
use serde_json::json;

use crate::world::{ACCOUNT, QUEUE, STORAGE};

const OTHER: &str = "https://kubernetes.default.svc.cluster.local";

fn identity() -> Identity {
    Identity { account: ACCOUNT.into(), arn: format!("arn:aws:iam::{ACCOUNT}:user/test") }
}

fn aws_error(class: Class) -> AwsError {
    let text = || "test".to_owned();
    AwsError {
        class,
        operation: "iam:GetRole",
        resource: text(),
        code: text(),
        message: text(),
        detail: text(),
    }
}

fn issuer_spec() -> OidcIssuerSpec {
    serde_json::from_value(json!({
        "clusterName": "homelab",
        "s3": {"bucket": "oidc-111122223333-eu-central-1-an", "region": "eu-central-1"},
        "grants": [{"namespaces": {"names": ["vault"]}, "policyArns": [STORAGE, QUEUE]}],
    }))
    .unwrap()
}

/// Ready's status and reason, and the companion beside it.
fn summary(conditions: &[Wanted]) -> String {
    let of = |type_: C| conditions.iter().find(|w| w.type_ == type_);
    let ready = of(C::Ready).unwrap();
    let status = if ready.status == Some(true) { "True" } else { "False" };
    let companion = [C::Reconciling, C::Stalled].into_iter().find(|t| of(*t).is_some()).map_or("", C::as_str);
    format!("{status} {} {companion}", ready.reason.as_str()).trim().to_owned()
}

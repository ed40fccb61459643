//! Condition keys of a session that STS issued.

use aws_sdk_s3::error::ProvideErrorMetadata;
use aws_sim::FederatedProviderForm;
use serde_json::json;

use crate::clients::{Clients, outcome};
use crate::exchange::{BUCKET, Case, issuer, provider_arn};

/// Reads the issuer's discovery document with a session's keys.
async fn read(session: &Clients) -> String {
    outcome(session.s3.get_object().bucket(BUCKET).key("homelab/openid/v1/jwks").send().await)
}

#[tokio::test]
async fn revocation_by_time_of_issue_ends_older_sessions_only() {
    let case = Case::valid().may("s3:*", "*");
    let older = case.session().await;
    assert_eq!(read(&older).await, "ok");
    let revoked = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(60);
    let document = json!({"Version": "2012-10-17", "Statement": [{
        "Effect": "Deny", "Action": ["*"], "Resource": ["*"],
        "Condition": {"DateLessThan": {"aws:TokenIssueTime": revoked.to_string()}},
    }]});
    case.inline("AWSRevokeOlderSessions", document);
    case.sim.shift_clock(120);
    let newer = case.session().await;
    case.sim.shift_clock(0);
    let refused =
        older.s3.get_object().bucket(BUCKET).key("homelab/openid/v1/jwks").send().await.unwrap_err();
    let message = refused.as_service_error().and_then(|e| e.message()).unwrap_or_default().to_owned();
    assert!(message.ends_with("with an explicit deny in an identity-based policy"), "{message}");
    assert_eq!(read(&newer).await, "ok");
}

#[tokio::test]
async fn the_form_of_the_federated_provider_is_that_of_the_behaviour() {
    let (arn, url) = (provider_arn(), issuer());
    let host_path = url.trim_start_matches("https://").to_owned();
    for (form, value) in [
        (FederatedProviderForm::Arn, Some(&arn)),
        (FederatedProviderForm::HostPath, Some(&host_path)),
        (FederatedProviderForm::Url, Some(&url)),
        (FederatedProviderForm::Absent, None),
    ] {
        for condition in [&arn, &host_path, &url] {
            let matches = Some(condition) == value;
            let mut case = Case::valid().may("s3:*", "*");
            case.sim.behave(|behaviour| behaviour.federated_provider = form);
            let session = case.session().await;
            let deny = json!({"Version": "2012-10-17", "Statement": [{
                "Effect": "Deny", "Action": "*", "Resource": "*",
                "Condition": {"StringEquals": {"aws:FederatedProvider": condition}},
            }]});
            case.inline("fence", deny);
            assert_eq!(
                read(&session).await,
                if matches { "AccessDenied" } else { "ok" },
                "{form:?} {condition}"
            );

            let mut trust = case.sim.state().role("homelab.vault").unwrap().trust.clone();
            trust["Statement"][0]["Condition"]["StringEquals"]["aws:FederatedProvider"] = json!(condition);
            case.set_trust(trust);
            case.session_name = "again".into();
            assert_eq!(case.assume().await.0, if matches { 200 } else { 403 }, "{form:?} {condition}");
        }
    }
}

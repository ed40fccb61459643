//! STS under each behaviour: the settings that tests of the product choose between.

use std::time::{Duration, Instant};

use aws_sim::JwksCache;
use rcgen::KeyPair;
use serde_json::json;

use crate::exchange::{Case, discovery, jwk, now};

/// Number of documents that STS read.
fn reads(case: &Case) -> usize {
    case.sim.calls().iter().filter(|call| call.action == "GetObject").count()
}

/// The issuer signs with a second key, and publishes both.
fn rotate(case: &mut Case) {
    let second = KeyPair::generate().unwrap();
    let keys = json!({"keys": [jwk(&case.key, "one"), jwk(&second, "two")]});
    case.publish(&discovery(), &keys);
    (case.key, case.header.kid) = (second, Some("two".into()));
}

#[tokio::test]
async fn without_a_cache_a_new_key_counts_at_once() {
    let mut case = Case::valid();
    assert_eq!(case.assume().await.0, 200);
    rotate(&mut case);
    assert_eq!(case.assume().await.0, 200);
    assert_eq!(reads(&case), 4);
}

#[tokio::test]
async fn kept_keys_are_not_read_again() {
    let mut case = Case::valid();
    case.sim.behave(|behaviour| behaviour.jwks_cache = JwksCache::ForEver);
    assert_eq!(case.assume().await.0, 200);
    assert_eq!(case.assume().await.0, 200);
    rotate(&mut case);
    let (status, body) = case.assume().await;
    assert_eq!(status, 400);
    assert!(body.contains("<Code>InvalidIdentityToken</Code>"), "{body}");
    assert_eq!(reads(&case), 2, "the first exchange read both documents");
}

#[tokio::test]
async fn kept_keys_are_read_again_when_their_time_is_over() {
    let mut case = Case::valid();
    let kept = Duration::from_millis(200);
    case.sim.behave(|behaviour| behaviour.jwks_cache = JwksCache::Milliseconds(200));
    let before = Instant::now();
    assert_eq!(case.assume().await.0, 200);
    let read = Instant::now();
    rotate(&mut case);
    loop {
        let asked = Instant::now();
        if case.assume().await.0 == 200 {
            assert!(before.elapsed() >= kept, "they were read again too early");
            break;
        }
        assert!(asked - read < kept, "they were not read again");
    }
    assert_eq!(reads(&case), 4);
}

#[tokio::test]
async fn a_token_beyond_the_age_cap_is_refused() {
    let mut case = Case::valid();
    case.claims["iat"] = json!(now() - 100);
    assert_eq!(case.assume().await.0, 200, "there is no cap");
    case.sim.behave(|behaviour| behaviour.token_age_cap_seconds = Some(50));
    let (status, body) = case.assume().await;
    assert_eq!(status, 400);
    assert!(body.contains("<Code>InvalidIdentityToken</Code>"), "{body}");
    assert!(body.contains("Token too old: 10"), "{body}");
    case.sim.behave(|behaviour| behaviour.token_age_cap_seconds = Some(3600));
    assert_eq!(case.assume().await.0, 200);
}

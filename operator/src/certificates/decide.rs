//! PURE: the next step of the certificates' reconcile.

use std::time::Duration;

use super::model::{
    BACKDATED, CertificateStep, CertifiedKey, Configuration, ObservedCertificates, validity, whole_seconds,
};

/// How old a CA must be before it replaces the signer of a valid leaf: API servers read the changed webhook configuration from
/// a watch.
pub const PROPAGATION_DELAY: Duration = Duration::from_secs(10);
/// How many earlier CAs stay trusted.
const MAX_PREVIOUS_CAS: usize = 2;
/// The last line of each certificate in a PEM.
const END_OF_PEM: &str = "-----END CERTIFICATE-----\n";

/// PURE: the next step, if any. Only one: everything is read again after it. `now` is in seconds since 1970.
#[must_use]
pub fn decide(observed: &ObservedCertificates, now: i64) -> Option<CertificateStep> {
    let ObservedCertificates { ca, previous, leaf, managed_by_other, configuration } = observed;
    if *managed_by_other {
        return None; // the program that manages the Secret writes the bundle, too
    }
    let renewal_is_due = |CertifiedKey { not_before, not_after, .. }: &CertifiedKey| {
        now < *not_before || now >= not_after - (not_after - not_before) / 3
    };
    let Some(ca) = ca.as_ref().filter(|ca| !renewal_is_due(ca)) else {
        return Some(CertificateStep::CreateCa);
    };
    let bundle = ca.certificate.clone() + previous.as_deref().unwrap_or_default();
    let trusted = |c: &Configuration| c.bundles.iter().all(|(_, live)| live == bundle.as_bytes());
    if !configuration.as_ref().is_none_or(trusted) {
        return Some(CertificateStep::WriteBundle(bundle));
    }
    if leaf.as_ref().is_some_and(|(leaf, signer)| !renewal_is_due(leaf) && *signer == ca.certificate) {
        return None;
    }
    // A leaf that is still valid is served until every API server has read the bundle with the new CA.
    let valid = leaf.as_ref().is_some_and(|(leaf, _)| leaf.not_before <= now && now < leaf.not_after);
    let propagated = now - ca.not_before >= whole_seconds(BACKDATED + PROPAGATION_DELAY).whole_seconds();
    (propagated || !valid).then_some(CertificateStep::CreateLeaf)
}

/// The CA certificates that must stay trusted beside a new one, newest first, as one PEM: the current CA or, where its Secret
/// was lost, the leaf's signer; and earlier ones, since a replica may not have loaded the last leaf when the next CA is created.
pub fn still_trusted(observed: &ObservedCertificates, now: i64) -> String {
    let current = observed.ca.as_ref().map(|ca| ca.certificate.as_str());
    let signer = observed.leaf.as_ref().map(|(_, signer)| signer.as_str());
    let earlier = observed.previous.as_deref().unwrap_or_default();
    let mut kept: Vec<&str> = Vec::new();
    for pem in [current, signer].into_iter().flatten().chain(earlier.split_inclusive(END_OF_PEM)) {
        let is_valid = validity(pem).is_some_and(|(_, not_after)| now < not_after);
        if is_valid && kept.len() < MAX_PREVIOUS_CAS && !kept.contains(&pem) {
            kept.push(pem);
        }
    }
    kept.concat()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use k8s_openapi::jiff::Timestamp;

    use super::*;
    use crate::certificates::certified_key::{ca, leaf};
    use crate::certificates::model::{MAX_CA_LIFE, MAX_LEAF_LIFE};

    const HOST: &str = "podidentity-webhook.podidentity-system.svc";
    const DAY: i64 = 86_400;

    fn complete() -> ObservedCertificates {
        let ca = ca(MAX_CA_LIFE).unwrap();
        let leaf = leaf(&ca, HOST, MAX_LEAF_LIFE).unwrap();
        let bundles = vec![("pods".to_owned(), ca.certificate.clone().into_bytes())];
        ObservedCertificates {
            leaf: Some((leaf, ca.certificate.clone())),
            ca: Some(ca),
            configuration: Some(Configuration { uid: "u".into(), bundles }),
            ..ObservedCertificates::default()
        }
    }

    #[test]
    fn each_step_follows_from_what_is_observed() {
        let now = Timestamp::now().as_second();
        let complete = complete();
        let certificate = complete.ca.clone().unwrap().certificate;
        assert_eq!(decide(&complete, now), None);
        assert_eq!(decide(&ObservedCertificates::default(), now), Some(CertificateStep::CreateCa));
        let bundle = CertificateStep::WriteBundle(certificate.clone());
        let emptied = Configuration { uid: "u".into(), bundles: vec![("pods".into(), Vec::new())] };
        // The bundle comes before the leaf, whatever else is missing.
        let untrusted = ObservedCertificates { configuration: Some(emptied), leaf: None, ..complete.clone() };
        assert_eq!(decide(&untrusted, now), Some(bundle));
        assert_eq!(
            decide(&ObservedCertificates { leaf: None, ..complete.clone() }, now),
            Some(CertificateStep::CreateLeaf)
        );
        // After the emergency stop no configuration is created, and the leaf is still renewed.
        assert_eq!(decide(&ObservedCertificates { configuration: None, ..complete.clone() }, now), None);
        // Renewal is due after two thirds of the lifetime.
        assert_eq!(decide(&complete, now + 4 * DAY), None);
        assert_eq!(decide(&complete, now + 5 * DAY), Some(CertificateStep::CreateLeaf));
        assert_eq!(decide(&complete, now + 250 * DAY), Some(CertificateStep::CreateCa));
        // The clock was set back.
        assert_eq!(decide(&complete, now - 2 * DAY), Some(CertificateStep::CreateCa));
        // A new CA signs a new leaf once it is trusted.
        let next = ca(MAX_CA_LIFE).unwrap();
        let rotated = ObservedCertificates {
            ca: Some(next.clone()),
            previous: Some(certificate.clone()),
            ..complete.clone()
        };
        let both = next.certificate + &certificate;
        assert_eq!(decide(&rotated, now), Some(CertificateStep::WriteBundle(both.clone())));
        // It waits until every API server has read the bundle, since the old leaf is valid.
        let bundles = vec![("pods".to_owned(), both.into_bytes())];
        let propagated = ObservedCertificates {
            configuration: Some(Configuration { uid: "u".into(), bundles }),
            ..rotated
        };
        assert_eq!(decide(&propagated, now), None);
        assert_eq!(decide(&propagated, now + 11), Some(CertificateStep::CreateLeaf));
        assert_eq!(
            decide(&ObservedCertificates { leaf: None, ..propagated }, now),
            Some(CertificateStep::CreateLeaf)
        );
        // The Secret of the CA was lost: the CA stays trusted.
        assert_eq!(still_trusted(&ObservedCertificates { ca: None, ..complete.clone() }, now), certificate);
        assert_eq!(
            decide(&ObservedCertificates { managed_by_other: true, ..ObservedCertificates::default() }, now),
            None
        );
    }

    #[test]
    fn a_ca_stays_trusted_after_two_newer_ones() {
        let now = Timestamp::now().as_second();
        let complete = complete();
        let third = complete.ca.clone().unwrap().certificate;
        let [first, second] = [(); 2].map(|()| ca(MAX_CA_LIFE).unwrap().certificate);
        let previous = Some(second.clone() + &first);
        let observed = ObservedCertificates { previous, ..complete.clone() };
        assert_eq!(still_trusted(&observed, now), third.clone() + &second, "no more than the maximum");
        assert_eq!(
            still_trusted(&ObservedCertificates { ca: None, ..observed.clone() }, now),
            third.clone() + &second
        );
        // The leaf is signed by an earlier CA.
        let leaf = complete.leaf.clone().map(|(leaf, _)| (leaf, second.clone()));
        let observed =
            ObservedCertificates { leaf, previous: Some(second.clone() + &first), ..complete.clone() };
        assert_eq!(still_trusted(&observed, now), third.clone() + &second);
        assert_eq!(
            still_trusted(&ObservedCertificates { ca: None, ..observed.clone() }, now),
            second + &first
        );
        assert_eq!(still_trusted(&observed, now + 366 * DAY), "", "expired CAs are dropped");
        assert_eq!(still_trusted(&ObservedCertificates::default(), now), "");
    }
}

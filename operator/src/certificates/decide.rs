//! PURE: what the certificates need next.

use std::time::Duration;

use super::model::{BACKDATED, Configuration, Observed, Pair, Step, validity, whole};

/// How old a CA must be before it takes over from another: API servers learn of a changed webhook configuration by a watch.
pub const HEARD_AFTER: Duration = Duration::from_secs(10);
/// How many CAs stay trusted beside the present one.
const KEPT: usize = 2;
/// Where one certificate ends and the next begins.
const END_OF_PEM: &str = "-----END CERTIFICATE-----\n";

/// PURE: the next step, if any; one at a time, each followed by a new look. `now` is in seconds since 1970.
#[must_use]
pub fn decide(observed: &Observed, now: i64) -> Option<Step> {
    let Observed { ca, previous, leaf, foreign, configuration } = observed;
    if *foreign {
        return None; // whoever keeps the Secret keeps the bundle, too
    }
    let fresh = |pair: &&Pair| {
        pair.not_before <= now && now < pair.not_after - (pair.not_after - pair.not_before) / 3
    };
    let Some(ca) = ca.as_ref().filter(fresh) else { return Some(Step::MakeCa) };
    let bundle = ca.certificate.clone() + previous.as_deref().unwrap_or_default();
    let trusted = |c: &Configuration| c.bundles.iter().all(|(_, standing)| standing == bundle.as_bytes());
    if !configuration.as_ref().is_none_or(trusted) {
        return Some(Step::PutBundle(bundle));
    }
    let serves = |(pair, signer): &&(Pair, String)| fresh(&pair) && *signer == ca.certificate;
    if leaf.as_ref().is_some_and(|leaf| serves(&leaf)) {
        return None;
    }
    // A leaf that is still valid serves until every API server has heard of the new CA.
    let valid = leaf.as_ref().is_some_and(|(pair, _)| pair.not_before <= now && now < pair.not_after);
    let heard = now - ca.not_before >= whole(BACKDATED + HEARD_AFTER).whole_seconds();
    (heard || !valid).then_some(Step::MakeLeaf)
}

/// The CAs that must stay trusted beside a new one, newest first: the one that stands or, where its Secret was lost, the
/// leaf's signer; and those before it, since a replica may not have taken the last leaf yet when the next CA is made.
pub fn trusted_so_far(observed: &Observed, now: i64) -> String {
    let standing = observed.ca.as_ref().map(|ca| ca.certificate.as_str());
    let signer = observed.leaf.as_ref().map(|(_, signer)| signer.as_str());
    let before = observed.previous.as_deref().unwrap_or_default();
    let mut kept: Vec<&str> = Vec::new();
    for pem in [standing, signer].into_iter().flatten().chain(before.split_inclusive(END_OF_PEM)) {
        let alive = validity(pem).is_some_and(|(_, not_after)| now < not_after);
        if alive && kept.len() < KEPT && !kept.contains(&pem) {
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
    use crate::certificates::model::{MAX_CA_LIFE, MAX_LEAF_LIFE};
    use crate::certificates::pair::{ca, leaf};

    const HOST: &str = "podidentity-webhook.podidentity-system.svc";
    const DAY: i64 = 86_400;

    fn standing() -> Observed {
        let ca = ca(MAX_CA_LIFE).unwrap();
        let leaf = leaf(&ca, HOST, MAX_LEAF_LIFE).unwrap();
        let bundles = vec![("pods".to_owned(), ca.certificate.clone().into_bytes())];
        Observed {
            leaf: Some((leaf, ca.certificate.clone())),
            ca: Some(ca),
            configuration: Some(Configuration { uid: "u".into(), bundles }),
            ..Observed::default()
        }
    }

    #[test]
    fn each_step_follows_from_what_stands() {
        let now = Timestamp::now().as_second();
        let good = standing();
        let certificate = good.ca.clone().unwrap().certificate;
        assert_eq!(decide(&good, now), None);
        assert_eq!(decide(&Observed::default(), now), Some(Step::MakeCa));
        let bundle = Step::PutBundle(certificate.clone());
        let emptied = Configuration { uid: "u".into(), bundles: vec![("pods".into(), Vec::new())] };
        // The bundle comes before the leaf, whatever else is missing.
        let unknown = Observed { configuration: Some(emptied), leaf: None, ..good.clone() };
        assert_eq!(decide(&unknown, now), Some(bundle));
        assert_eq!(decide(&Observed { leaf: None, ..good.clone() }, now), Some(Step::MakeLeaf));
        // The emergency stop: no configuration is made, and the leaf is kept ready.
        assert_eq!(decide(&Observed { configuration: None, ..good.clone() }, now), None);
        // At two thirds of its life.
        assert_eq!(decide(&good, now + 4 * DAY), None);
        assert_eq!(decide(&good, now + 5 * DAY), Some(Step::MakeLeaf));
        assert_eq!(decide(&good, now + 250 * DAY), Some(Step::MakeCa));
        // A clock that went back.
        assert_eq!(decide(&good, now - 2 * DAY), Some(Step::MakeCa));
        // Another CA: its successor signs anew once it is trusted.
        let next = ca(MAX_CA_LIFE).unwrap();
        let rotated =
            Observed { ca: Some(next.clone()), previous: Some(certificate.clone()), ..good.clone() };
        let both = next.certificate + &certificate;
        assert_eq!(decide(&rotated, now), Some(Step::PutBundle(both.clone())));
        // Only once every API server has heard of it, since the old leaf still serves.
        let bundles = vec![("pods".to_owned(), both.into_bytes())];
        let heard = Observed { configuration: Some(Configuration { uid: "u".into(), bundles }), ..rotated };
        assert_eq!(decide(&heard, now), None);
        assert_eq!(decide(&heard, now + 11), Some(Step::MakeLeaf));
        assert_eq!(decide(&Observed { leaf: None, ..heard }, now), Some(Step::MakeLeaf));
        // A CA whose Secret was lost: what it signed stays trusted.
        assert_eq!(trusted_so_far(&Observed { ca: None, ..good.clone() }, now), certificate);
        assert_eq!(decide(&Observed { foreign: true, ..Observed::default() }, now), None);
    }

    #[test]
    fn a_ca_stays_trusted_through_two_more() {
        let now = Timestamp::now().as_second();
        let good = standing();
        let third = good.ca.clone().unwrap().certificate;
        let [first, second] = [(); 2].map(|()| ca(MAX_CA_LIFE).unwrap().certificate);
        let previous = Some(second.clone() + &first);
        let observed = Observed { previous, ..good.clone() };
        assert_eq!(trusted_so_far(&observed, now), third.clone() + &second, "no more than are kept");
        assert_eq!(trusted_so_far(&Observed { ca: None, ..observed.clone() }, now), third.clone() + &second);
        // The leaf is signed by an older one still.
        let leaf = good.leaf.clone().map(|(pair, _)| (pair, second.clone()));
        let observed = Observed { leaf, previous: Some(second.clone() + &first), ..good.clone() };
        assert_eq!(trusted_so_far(&observed, now), third.clone() + &second);
        assert_eq!(trusted_so_far(&Observed { ca: None, ..observed.clone() }, now), second + &first);
        assert_eq!(trusted_so_far(&observed, now + 366 * DAY), "", "what has ended is kept no longer");
        assert_eq!(trusted_so_far(&Observed::default(), now), "");
    }
}

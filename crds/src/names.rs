//! PURE: names that the operator, the webhook, the chart and the tests share: API names, field managers, annotation and tag
//! keys, and the AWS names and ARNs, which are computed from the names of objects.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

use data_encoding::BASE32_NOPAD;
use sha2::{Digest, Sha256};

/// The API group of both kinds.
pub const GROUP: &str = "podidentity.dev";
/// The only served version.
pub const VERSION: &str = "v1alpha1";
/// The finalizer that keeps a deleted object until its resources in AWS are deleted, too.
pub const FINALIZER: &str = "podidentity.dev/finalizer";
/// An administrator's annotation of an `OidcIssuer`, value `true`: its account in AWS is lost, so it and its bindings are deleted
/// without a call of AWS, and what they made stays there.
pub const ABANDON_ANNOTATION: &str = "podidentity.dev/abandon";
/// An administrator's annotation of an `OidcIssuer`: that many roles may be revoked at once after this generation's change of grants,
/// written as `<metadata.generation>:<number>`.
pub const CONFIRM_ANNOTATION: &str = "podidentity.dev/confirm-revocation";
/// An annotation of a `PodIdentityBinding`, value `true`: the Deployments, `StatefulSet`s and `DaemonSet`s of its pods that run without the
/// identity are restarted, each once.
pub const RESTART_ANNOTATION: &str = "podidentity.dev/restart-missing";
/// An annotation of a pod template that was restarted: the uid of the binding for which it was. It is not restarted again for that one.
pub const RESTARTED_FOR_ANNOTATION: &str = "podidentity.dev/restarted-for";
/// The annotation of a pod template that `kubectl rollout restart` writes.
pub const RESTARTED_AT_ANNOTATION: &str = "kubectl.kubernetes.io/restartedAt";
/// The inline policy that denies everything to a revoked role.
pub const REVOKED_POLICY: &str = "podidentity-revoked";
/// Field manager of status writes.
pub const MANAGER_STATUS: &str = "podidentity-operator-status";
/// Field manager of patches of our finalizer. Not the one of other writes: some are server-side applies, and an apply of the same
/// name would own, and could drop, what is patched.
pub const MANAGER_FINALIZER: &str = "podidentity-operator-finalizer";
/// Field manager of `ServiceAccount` annotations.
pub const MANAGER_ANNOTATION: &str = "podidentity-operator-annotations";
/// Field manager of the annotation that restarts a workload.
pub const MANAGER_RESTART: &str = "podidentity-operator-restart";
/// Field manager of the webhook configuration's `caBundle` and of the certificate Secrets.
pub const MANAGER_CERTIFICATES: &str = "podidentity-operator-certificates";
/// Name under which the operator reports events.
pub const CONTROLLER: &str = "podidentity-operator";

/// The default namespace of both components.
pub const SYSTEM_NAMESPACE: &str = "podidentity-system";
/// The operator's own `ServiceAccount`.
pub const OPERATOR_SERVICE_ACCOUNT: &str = "podidentity-operator";
/// Name of the Service and the webhook configuration of the admission webhook.
pub const WEBHOOK: &str = "podidentity-webhook";
/// Secret with the CA key; read by the operator's leader only.
pub const CA_SECRET: &str = "podidentity-webhook-ca";
/// Secret (`kubernetes.io/tls`) with the serving certificate; watched by the webhook.
pub const TLS_SECRET: &str = "podidentity-webhook-tls";
/// Lease of the operator's leader election.
pub const LEASE: &str = "podidentity-operator";

/// The issuer a binding uses where its `spec.issuerRef` names none.
pub const DEFAULT_ISSUER: &str = "default";
/// The audience AWS's own documentation uses; any string works where token, provider and trust policy agree.
pub const DEFAULT_AUDIENCE: &str = "sts.amazonaws.com";

/// A hash for comparisons within one process, where the text itself would need memory for each of many objects.
#[must_use]
pub fn hash_of(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

/// Labels with which users configure the webhook for pods; the selectors of the chart's webhook configuration contain them.
pub mod label {
    /// `true` on a namespace or a pod: the webhook refuses a pod without identity.
    pub const REQUIRE: &str = "podidentity.dev/require";
    /// `disabled` on a namespace or a pod: the webhook does not change the pod.
    pub const INJECTION: &str = "podidentity.dev/injection";
}

/// The ConfigMap with which kOps, and users of the EKS Pod Identity Webhook, map `ServiceAccount`s to roles.
pub const ROLE_MAP: &str = "pod-identity-webhook";

/// `ServiceAccount` annotations of the EKS Pod Identity Webhook contract.
pub mod annotation {
    /// The prefix of all of them.
    pub const PREFIX: &str = "eks.amazonaws.com";
    /// The role to assume.
    pub const ROLE_ARN: &str = "eks.amazonaws.com/role-arn";
    /// The token's audience.
    pub const AUDIENCE: &str = "eks.amazonaws.com/audience";
    /// Whether SDKs use the regional STS endpoint.
    pub const STS_REGIONAL_ENDPOINTS: &str = "eks.amazonaws.com/sts-regional-endpoints";
    /// The token's lifetime in seconds.
    pub const TOKEN_EXPIRATION: &str = "eks.amazonaws.com/token-expiration";
}

/// Tag keys that record the owner of every resource in AWS. A value has at most 256 characters (IAM's quota), so each part of
/// the owner has its own key.
pub mod tag {
    /// What all of them begin with.
    pub const PREFIX: &str = "podidentity.dev/";
    /// `spec.clusterName` of the issuer.
    pub const CLUSTER: &str = "podidentity.dev/cluster";
    /// Kind of the object that the resource belongs to, or `Operator` for what `bootstrap` creates for the operator itself.
    pub const KIND: &str = "podidentity.dev/kind";
    /// Namespace of the object; absent for cluster-scoped ones.
    pub const NAMESPACE: &str = "podidentity.dev/namespace";
    /// Name of the object.
    pub const NAME: &str = "podidentity.dev/name";
    /// The issuer URL. It distinguishes two clusters with the same `spec.clusterName`.
    pub const ISSUER: &str = "podidentity.dev/issuer";
    /// On a role that is kept on purpose after its binding is deleted: such a role does not count as orphaned.
    pub const RETAINED: &str = "podidentity.dev/retained";
    /// On a role whose binding has moved to another issuer or audience: until when its trust policy has the former statement, in
    /// seconds since 1970.
    pub const FORMER_UNTIL: &str = "podidentity.dev/former-trust-until";
}

/// An AWS partition: its part of ARNs and of the host names of endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partition {
    /// The second part of every ARN, for example `aws-cn`.
    pub id: &'static str,
    /// DNS suffix of the regional endpoints, for example `amazonaws.com.cn`.
    pub dns_suffix: &'static str,
}

impl Partition {
    /// The partition of a region, by the region's prefix (botocore's `partitions.json`).
    #[must_use]
    pub fn of_region(region: &str) -> Self {
        const PREFIXES: [(&str, Partition); 3] = [
            ("cn-", Partition { id: "aws-cn", dns_suffix: "amazonaws.com.cn" }),
            ("us-gov-", Partition { id: "aws-us-gov", dns_suffix: "amazonaws.com" }),
            ("eusc-", Partition { id: "aws-eusc", dns_suffix: "amazonaws.eu" }),
        ];
        PREFIXES
            .iter()
            .find(|(prefix, _)| region.starts_with(prefix))
            .map_or(Self { id: "aws", dns_suffix: "amazonaws.com" }, |(_, partition)| *partition)
    }

    /// The partition of an ARN; `None` where it is not one that is known here.
    #[must_use]
    pub fn of_arn(arn: &str) -> Option<Self> {
        let id = arn.strip_prefix("arn:")?.split(':').next()?;
        let all = ["us-east-1", "cn-north-1", "us-gov-west-1", "eusc-de-east-1"].map(Self::of_region);
        all.into_iter().find(|partition| partition.id == id)
    }

    /// Whether a region belongs to a partition that is known here (botocore's `partitions.json`). Others, such as the isolated
    /// ones, have other DNS suffixes.
    #[must_use]
    pub fn has_region(region: &str) -> bool {
        const AREAS: [&str; 9] = ["us", "eu", "ap", "sa", "ca", "me", "af", "il", "mx"];
        let letters = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase());
        let number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        match region.split('-').collect::<Vec<_>>()[..] {
            [area, place, count] => {
                (area == "cn" || AREAS.contains(&area)) && letters(place) && number(count)
            }
            ["us", "gov", place, count] => letters(place) && number(count),
            ["eusc", country, place, count] => letters(country) && letters(place) && number(count),
            _ => false,
        }
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id)
    }
}

/// The URL of the documentation, without a slash at its end.
pub const DOCS: &str = concat!(env!("CARGO_PKG_REPOSITORY"), "/blob/main/docs");

/// The account of an ARN; `None` where it has none.
#[must_use]
pub fn account_of_arn(arn: &str) -> Option<&str> {
    arn.split(':').nth(4).filter(|account| !account.is_empty())
}

/// The account in a bucket name of S3's account-regional namespace, `<name>-<account>-<region>-an`; `None` for every other
/// name. Only that account can create such a bucket, and only in that region.
#[must_use]
pub fn account_of_bucket<'a>(bucket: &'a str, region: &str) -> Option<&'a str> {
    const ACCOUNT_LENGTH: usize = 12;
    let rest = bucket.strip_suffix("-an")?.strip_suffix(region)?.strip_suffix('-')?;
    let (_, account) = rest.rsplit_once('-')?;
    (account.len() == ACCOUNT_LENGTH && account.bytes().all(|b| b.is_ascii_digit())).then_some(account)
}

/// A role name has at most 64 characters (IAM's quota): up to 50 that people can read, a hyphen, and [`HASH_LENGTH`] of the hash.
const READABLE_LENGTH: usize = 50;
/// 12 base32 characters are 60 bits of SHA-256: among a million roles, the probability of a collision is one in two million,
/// and the ownership tags would show it.
const HASH_LENGTH: usize = 12;

/// Path of the roles of every cluster's bindings, and of their permissions boundaries.
pub const ROLES_PATH: &str = "/podidentity/";

/// Path of every role and policy of a cluster's bindings. The operator may change only roles with this path.
#[must_use]
pub fn role_path(cluster: &str) -> String {
    format!("{ROLES_PATH}{cluster}/")
}

/// Whether the ARN of a managed policy, or a pattern of such ARNs, names policies under [`ROLES_PATH`]: permissions boundaries,
/// which allow all that they do not deny. IAM compares names without regard to case.
#[must_use]
pub fn is_boundary(policy_arn: &str) -> bool {
    let path = policy_arn.split_once(":policy").map_or("", |(_, path)| path);
    path.get(..ROLES_PATH.len()).is_some_and(|start| start.eq_ignore_ascii_case(ROLES_PATH))
}

/// Name of the role of one `ServiceAccount`: readable, at most 64 characters that IAM allows, and different for each
/// `ServiceAccount` because of the hash of `<cluster>/<namespace>/<serviceAccount>` (none of the three contains `/`). IAM role
/// names are case-insensitive, so that the hash is in lower case, as Kubernetes names are.
#[must_use]
pub fn role_name(cluster: &str, namespace: &str, service_account: &str) -> String {
    let mut name = format!("{cluster}.{namespace}.{service_account}");
    // Names of Kubernetes are ASCII; a text that is none must not end the program.
    name.truncate(name.floor_char_boundary(READABLE_LENGTH));
    format!("{name}-{}", short_digest(format!("{cluster}/{namespace}/{service_account}").as_bytes()))
}

/// 60 bits of a SHA-256 digest, as twelve characters.
#[must_use]
pub fn short_digest(bytes: &[u8]) -> String {
    let mut hash = BASE32_NOPAD.encode(&Sha256::digest(bytes)).to_ascii_lowercase();
    hash.truncate(HASH_LENGTH);
    hash
}

/// ARN of the role of one `ServiceAccount`; known before the role exists.
#[must_use]
pub fn role_arn(
    partition: &str,
    account: &str,
    cluster: &str,
    namespace: &str,
    service_account: &str,
) -> String {
    let (path, name) = (role_path(cluster), role_name(cluster, namespace, service_account));
    format!("arn:{partition}:iam::{account}:role{path}{name}")
}

/// Name of the permissions boundary of every role of a cluster. IAM policy names are unique per account whatever
/// their path (`CreatePolicy`), so the cluster is part of the name.
#[must_use]
pub fn boundary_name(cluster: &str) -> String {
    format!("{cluster}.boundary")
}

/// ARN of the permissions boundary of every role of a cluster.
#[must_use]
pub fn boundary_arn(partition: &str, account: &str, cluster: &str) -> String {
    format!("arn:{partition}:iam::{account}:policy{}{}", role_path(cluster), boundary_name(cluster))
}

/// Path of the operator's own role: outside [`role_path`], so that the operator cannot change its own role.
pub const OPERATOR_ROLE_PATH: &str = "/podidentity-system/";

/// Name of the operator's own role. `clusterName` has at most 32 characters, so this has at most 53.
#[must_use]
pub fn operator_role_name(cluster: &str) -> String {
    format!("podidentity-operator.{cluster}")
}

/// ARN of the operator's own role.
#[must_use]
pub fn operator_role_arn(partition: &str, account: &str, cluster: &str) -> String {
    format!("arn:{partition}:iam::{account}:role{OPERATOR_ROLE_PATH}{}", operator_role_name(cluster))
}

/// Name of the role with which the operator checks that a bucket's policy keeps pods from writing: at [`OPERATOR_ROLE_PATH`],
/// outside [`ROLES_PATH`], so that only the statement about sessions of the issuer denies.
#[must_use]
pub fn canary_role_name(cluster: &str) -> String {
    format!("podidentity-canary.{cluster}")
}

/// ARN of that role.
#[must_use]
pub fn canary_role_arn(partition: &str, account: &str, cluster: &str) -> String {
    format!("arn:{partition}:iam::{account}:role{OPERATOR_ROLE_PATH}{}", canary_role_name(cluster))
}

/// ARN of the IAM OIDC provider of an issuer URL: the URL without its scheme, byte for byte.
#[must_use]
pub fn provider_arn(partition: &str, account: &str, issuer_url: &str) -> String {
    format!("arn:{partition}:iam::{account}:oidc-provider/{}", scheme_less(issuer_url))
}

/// The issuer URL as IAM stores it and as trust-policy condition keys are spelled: without `https://`.
#[must_use]
pub fn scheme_less(issuer_url: &str) -> &str {
    issuer_url.strip_prefix("https://").unwrap_or(issuer_url)
}

/// The `sub` claim of a `ServiceAccount`'s token.
#[must_use]
pub fn subject(namespace: &str, service_account: &str) -> String {
    format!("system:serviceaccount:{namespace}:{service_account}")
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn role_names_do_not_change() {
        // printf homelab/vault/vault | sha256sum | xxd -r -p | base32, first twelve, lower case.
        assert_eq!(role_name("homelab", "vault", "vault"), "homelab.vault.vault-bno5n7ilbuky");
        assert_eq!(
            role_arn("aws", "111122223333", "homelab", "vault", "vault"),
            "arn:aws:iam::111122223333:role/podidentity/homelab/homelab.vault.vault-bno5n7ilbuky"
        );
    }

    #[test]
    fn boundaries_are_recognised_by_their_path_whatever_its_case() {
        for (arn, expected) in [
            ("arn:aws:iam::111122223333:policy/podidentity/homelab/homelab.boundary", true),
            ("arn:aws:iam::111122223333:policy/PodIdentity/office/office.boundary", true),
            ("arn:aws:iam::111122223333:policy/podidentity/*", true),
            ("arn:aws:iam::111122223333:policy/podidentity-system/x", false),
            ("arn:aws:iam::111122223333:policy/team/podidentity/x", false),
            ("arn:aws:iam::111122223333:policy/*", false),
            ("*", false),
        ] {
            assert_eq!(is_boundary(arn), expected, "{arn}");
        }
    }

    #[test]
    fn every_region_has_its_partition() {
        for (region, id, suffix) in [
            ("eu-central-1", "aws", "amazonaws.com"),
            ("us-east-1", "aws", "amazonaws.com"),
            ("cn-north-1", "aws-cn", "amazonaws.com.cn"),
            ("us-gov-west-1", "aws-us-gov", "amazonaws.com"),
            ("eusc-de-east-1", "aws-eusc", "amazonaws.eu"),
        ] {
            assert_eq!(Partition::of_region(region), Partition { id, dns_suffix: suffix }, "{region}");
            assert!(Partition::has_region(region), "{region}");
        }
        for unknown in ["us-iso-east-1", "us-isob-east-1", "eu-isoe-west-1", "xx-central-1", "eu-central", ""]
        {
            assert!(!Partition::has_region(unknown), "{unknown}");
        }
    }

    #[test]
    fn the_account_is_read_from_account_regional_bucket_names_only() {
        for (bucket, region, account) in [
            ("oidc-111122223333-eu-central-1-an", "eu-central-1", Some("111122223333")),
            ("a-b-111122223333-eu-central-1-an", "eu-central-1", Some("111122223333")),
            ("oidc-111122223333-eu-central-1-an", "eu-west-1", None),
            ("oidc-11112222333-eu-central-1-an", "eu-central-1", None),
            ("oidc-11112222333x-eu-central-1-an", "eu-central-1", None),
            ("111122223333-eu-central-1-an", "eu-central-1", None),
            ("oidc-111122223333-eu-central-1", "eu-central-1", None),
            ("oidc", "eu-central-1", None),
        ] {
            assert_eq!(account_of_bucket(bucket, region), account, "{bucket} in {region}");
        }
    }

    fn label(max: usize) -> impl Strategy<Value = String> {
        proptest::string::string_regex(&format!("[a-z0-9]([-a-z0-9]{{0,{}}}[a-z0-9])?", max - 2))
            .expect("a regex")
    }
    fn service_account() -> impl Strategy<Value = String> {
        proptest::string::string_regex("[a-z0-9]([-a-z0-9.]{0,200}[a-z0-9])?").expect("a regex")
    }

    proptest! {
        #[test]
        fn role_names_fit_iam(cluster in label(32), namespace in label(63), sa in service_account()) {
            let name = role_name(&cluster, &namespace, &sa);
            prop_assert!(name.len() <= 64, "{name}");
            prop_assert!(name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "+=,.@-_".contains(c)));
        }

        /// Role names differ even where the joined names are equal (`a-b`/`c`, `a`/`b-c`) or begin with the same 50 characters.
        #[test]
        fn role_names_are_injective(names in proptest::collection::vec((label(8), "[ab.-]{1,6}", "[ab.-]{1,60}"), 2..200)) {
            let mut seen: HashMap<String, (String, String, String)> = HashMap::new();
            for triple in names {
                let name = role_name(&triple.0, &triple.1, &triple.2);
                if let Some(other) = seen.insert(name.clone(), triple.clone()) {
                    prop_assert_eq!(&other, &triple, "{}", name);
                }
            }
        }
    }
}

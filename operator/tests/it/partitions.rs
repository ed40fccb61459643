//! Everything that is computed of an issuer in each partition, as golden files: URLs, ARNs, policies, hosts. To write them anew:
//! `PODIDENTITY_GOLDEN=write cargo test -p operator --test it -- partitions`.

use aws_sdk_sts::config::endpoint::{DefaultResolver, Params, ResolveEndpoint};
use crds::OidcIssuerSpec;
use crds::names::{self, Partition};
use operator::aws::model::Identity;
use operator::bootstrap::boundary;
use operator::installation::{Installation, NamedIssuer};
use operator::issuer::publication::bucket;
use operator::issuer::publication::target::Target;
use operator::policy;
use serde_json::{Value, json};

use crate::structure::read;

const PARTITIONS: [(&str, &str); 4] = [
    ("aws", "eu-central-1"),
    ("aws-cn", "cn-north-1"),
    ("aws-us-gov", "us-gov-west-1"),
    ("aws-eusc", "eusc-de-east-1"),
];
const ACCOUNT: &str = "111122223333";

async fn computed(partition: &str, region: &str) -> Value {
    let spec: OidcIssuerSpec = serde_json::from_value(json!({
        "clusterName": "homelab",
        "s3": {"bucket": format!("oidc-{ACCOUNT}-{region}-an"), "region": region},
    }))
    .unwrap();
    let identity =
        Identity { account: ACCOUNT.into(), arn: format!("arn:{partition}:iam::{ACCOUNT}:user/admin") };
    assert_eq!(identity.partition().id, partition);
    assert_eq!(spec.partition(), Some(Partition::of_region(region)));
    let target = Target::new("default", &spec, &identity);
    let installation =
        Installation::new(&identity, [NamedIssuer { name: "default".into(), spec: spec.clone() }]).unwrap();
    let parameters = Params::builder().region(region).use_global_endpoint(false).build().unwrap();
    let sts = DefaultResolver::new().resolve_endpoint(&parameters).await.unwrap();
    json!({
        "issuerURL": spec.issuer_url(),
        "jwksURI": spec.jwks_uri(),
        "discoveryURI": spec.discovery_uri(),
        "providerARN": target.provider_arn,
        "operatorRoleARN": target.operator_role_arn,
        "canaryRoleARN": target.canary_role_arn,
        "boundaryARN": boundary::arn(&installation),
        "roleARN": names::role_arn(partition, ACCOUNT, "homelab", "vault", "vault"),
        "stsEndpoint": sts.url(),
        "bucketPolicy": bucket::wanted(&target, target.managed().unwrap()).policy(),
        "boundary": boundary::wanted(&installation),
        "operatorPolicy": policy::operator::policy(&installation),
    })
}

#[tokio::test]
async fn everything_that_is_computed_is_of_the_region_s_partition() {
    for (partition, region) in PARTITIONS {
        let file = format!("operator/tests/golden/{partition}.json");
        let computed = computed(partition, region).await;
        if std::env::var("PODIDENTITY_GOLDEN").is_ok_and(|value| value == "write") {
            let path = format!("{}/../{file}", env!("CARGO_MANIFEST_DIR"));
            std::fs::write(path, format!("{computed:#}\n")).unwrap();
        }
        let golden: Value = serde_json::from_str(&read(&file)).unwrap();
        assert_eq!(computed, golden, "{file}");
        // No ARN of another partition anywhere.
        for other in PARTITIONS.iter().map(|(other, _)| other).filter(|other| **other != partition) {
            assert!(
                !computed.to_string().contains(&format!("arn:{other}:")),
                "{partition} has ARNs of {other}"
            );
        }
    }
}

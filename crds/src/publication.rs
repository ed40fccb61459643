//! Where an issuer's documents are published and where it is registered, and whether the operator manages these.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where the two documents are published.
#[derive(KubeSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct S3Location {
    /// Bucket name. Names that end in `-<account>-<region>-an` are made in the account-regional namespace, where no other
    /// account can claim them: recommended.
    #[schemars(length(min = 3, max = 63))]
    #[x_kube(
        validation = Rule::new("self.matches('^[a-z0-9][a-z0-9.-]*[a-z0-9]$') && !self.contains('..')")
            .message("a bucket name has lower-case letters, digits, hyphens and single dots, and begins and ends with a letter or digit"),
        validation = Rule::new("!self.matches('^[0-9]+[.][0-9]+[.][0-9]+[.][0-9]+$')")
            .message("a bucket name is not formatted as an IP address"),
        validation = Rule::new("!['xn--', 'sthree-', 'amzn-s3-demo-'].exists(prefix, self.startsWith(prefix)) && !['-s3alias', '--ol-s3', '.mrap', '--x-s3', '--table-s3'].exists(suffix, self.endsWith(suffix))")
            .message("S3 reserves bucket names that begin with xn--, sthree- or amzn-s3-demo- or end with -s3alias, --ol-s3, .mrap, --x-s3 or --table-s3")
    )]
    pub bucket: String,
    /// The bucket's region, for example `eu-central-1`.
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(validation = Rule::new("self.matches('^((us|eu|ap|sa|ca|me|af|il|mx)-[a-z]+-[0-9]+|(cn|us-gov|eusc-[a-z]+)-[a-z]+-[0-9]+)$')")
        .message("this is not a region of the partitions aws, aws-cn, aws-us-gov and aws-eusc; an example of one is eu-central-1"))]
    pub region: String,
    /// Key prefix of the two documents, without slashes at its ends; `""` is the bucket's root. Default: `clusterName`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    #[x_kube(validation = Rule::new("self == '' || self.matches('^[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*$')")
        .message("a prefix has letters, digits, dots, hyphens, underscores and single slashes, and no slash at its ends"))]
    pub prefix: Option<String>,
    /// `Managed`: the bucket is made for this issuer and kept as specified. `Existing`: only the two documents are written;
    /// the bucket, its policy and whatever is in front of it (a CDN, a domain) are not managed by the operator.
    #[serde(default)]
    pub management: Management,
}

/// The IAM OIDC provider.
#[derive(KubeSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "camelCase")]
pub struct ProviderSettings {
    /// `Managed`: the provider is made for this issuer and kept as specified. `Existing`: it must exist with this issuer's URL
    /// and all of its audiences, and is not changed.
    #[serde(default)]
    pub management: Management,
}

/// Who makes something in AWS and keeps it as specified.
#[derive(JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Management {
    /// The operator.
    #[default]
    Managed,
    /// Somebody else.
    Existing,
}

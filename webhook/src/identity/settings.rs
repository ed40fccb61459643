//! PURE: the flags about identities and pods, parsed once.

/// How identities are made and where in a pod they are added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Prefix of the annotations read from `ServiceAccount`s and pods, without the slash.
    pub annotation_prefix: String,
    /// The token's audience where no other source sets one.
    pub audience: String,
    /// The token's lifetime in seconds where no other source sets one.
    pub expiration_seconds: i64,
    /// Whether a lifetime of exactly 24 h is shortened by up to 2 h, differently for each pod, so that the pods of a rollout
    /// do not all renew at the same time.
    pub expiration_jitter: bool,
    /// The region of `ServiceAccount`s without a binding; for a binding, where neither it nor its issuer names one.
    pub region: Option<String>,
    /// `AWS_STS_REGIONAL_ENDPOINTS` for annotated `ServiceAccount`s; a binding has its own default, true.
    pub sts_regional_endpoints: bool,
    /// Whether `AWS_ROLE_SESSION_NAME` is injected, with the pod's name as its value.
    pub role_session_name: bool,
    /// Directory the token is mounted at, without a slash at its end.
    pub mount_path: String,
    /// How a role annotation that is not an ARN is interpreted.
    pub role_names: RoleNames,
    /// EKS Pod Identity.
    pub container_credentials: ContainerCredentials,
    /// The pod's annotation that lists containers to skip.
    pub skip_containers: String,
    /// The pod's annotation with its token's lifetime.
    pub token_expiration: String,
}

impl Settings {
    /// The defaults of the EKS Pod Identity Webhook, for annotations of a prefix.
    #[must_use]
    pub fn new(annotation_prefix: &str) -> Self {
        Self {
            annotation_prefix: annotation_prefix.to_owned(),
            audience: crds::names::DEFAULT_AUDIENCE.into(),
            expiration_seconds: crds::binding::DEFAULT_TOKEN_EXPIRATION_SECONDS,
            expiration_jitter: false,
            region: None,
            sts_regional_endpoints: false,
            role_session_name: false,
            mount_path: "/var/run/secrets/eks.amazonaws.com/serviceaccount".into(),
            role_names: RoleNames::Verbatim,
            container_credentials: ContainerCredentials::default(),
            skip_containers: format!("{annotation_prefix}/skip-containers"),
            token_expiration: format!("{annotation_prefix}/token-expiration"),
        }
    }
}

/// How a role annotation is interpreted that is not an ARN but a name, or a path and a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RoleNames {
    /// It is injected unchanged, as by the EKS webhook without `--compose-role-arn`.
    Verbatim,
    /// It is a role of this account.
    OfAccount {
        /// Twelve digits; `None`: the default issuer's account.
        account: Option<String>,
        /// For example `aws`; `None`: the default issuer's partition.
        partition: Option<String>,
    },
}

/// How pods in container-credentials mode reach the agent that gives them credentials (EKS Pod Identity's contract).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerCredentials {
    /// The token's audience.
    pub audience: String,
    /// Directory the token is mounted at, without a slash at its end.
    pub mount_path: String,
    /// Name of the token's volume.
    pub volume_name: String,
    /// The token's file in its volume.
    pub token_path: String,
    /// `AWS_CONTAINER_CREDENTIALS_FULL_URI`.
    pub full_uri: String,
}

impl Default for ContainerCredentials {
    fn default() -> Self {
        Self {
            audience: "pods.eks.amazonaws.com".into(),
            mount_path: "/var/run/secrets/pods.eks.amazonaws.com/serviceaccount".into(),
            volume_name: "eks-pod-identity-token".into(),
            token_path: "eks-pod-identity-token".into(),
            full_uri: "http://169.254.170.23/v1/credentials".into(),
        }
    }
}

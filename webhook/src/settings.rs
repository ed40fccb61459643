//! PURE: what the flags say about identities and pods, worked out once.

/// How identities are made and where in a pod they go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Prefix of the annotations read from `ServiceAccount`s and pods, without the slash.
    pub annotation_prefix: String,
    /// The token's audience where nothing else says.
    pub audience: String,
    /// The token's life in seconds where nothing else says.
    pub expiration_seconds: i64,
    /// Whether a life of exactly 24 h is shortened by up to 2 h, differently for each pod, so that the pods of a rollout
    /// do not all renew at once.
    pub expiration_jitter: bool,
    /// The region of those who are not bound; for a binding, where neither it nor its issuer names one.
    pub region: Option<String>,
    /// `AWS_STS_REGIONAL_ENDPOINTS` for annotated `ServiceAccount`s; a binding has its own default, true.
    pub sts_regional_endpoints: bool,
    /// Whether `AWS_ROLE_SESSION_NAME` is injected, with the pod's name as its value.
    pub role_session_name: bool,
    /// Directory the token is mounted at, without a slash at its end.
    pub mount_path: String,
    /// Whose role an annotation names that is no ARN.
    pub composed: Composed,
    /// EKS Pod Identity's way.
    pub container_credentials: ContainerCredentials,
    /// The pod's annotation with containers to leave alone.
    pub skip_containers: String,
    /// The pod's annotation with its token's life.
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
            composed: Composed::Never,
            container_credentials: ContainerCredentials::default(),
            skip_containers: format!("{annotation_prefix}/skip-containers"),
            token_expiration: format!("{annotation_prefix}/token-expiration"),
        }
    }
}

/// What becomes of a role annotation that is no ARN but a name, or a path and a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Composed {
    /// It is injected as it is, as the reference does without `--compose-role-arn`.
    Never,
    /// It is a role of this account.
    Of {
        /// Twelve digits; the issuer's account where none is given.
        account: Option<String>,
        /// For example `aws`; the issuer's partition where none is given.
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

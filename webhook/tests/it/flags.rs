//! The settings that follow from the command line: the EKS webhook's flags under their own names.

use std::time::Duration;

use clap::Parser;
use webhook::cli::Args;
use webhook::identity::settings::{ContainerCredentials, RoleNames, Settings};

fn args(flags: &[&str]) -> Args {
    Args::try_parse_from(std::iter::once(&"webhook").chain(flags)).unwrap()
}

#[test]
fn without_flags_settings_are_those_of_the_eks_webhook() {
    assert_eq!(args(&[]).settings(), Settings::new("eks.amazonaws.com"));
}

#[test]
fn every_flag_about_identities_is_applied() {
    let given = args(&[
        "--annotation-prefix=irsa.example",
        "--token-audience=aud",
        "--token-mount-path=/token/",
        "--token-expiration=3600",
        "--token-expiration-jitter",
        "--aws-default-region=eu-west-1",
        "--sts-regional-endpoint",
        "--role-session-name",
        "--compose-role-arn",
        "--aws-account-id=111122223333",
        "--aws-partition=aws-cn",
        "--container-credentials-audience=agent",
        "--container-credentials-token-mount-path=/agent",
        "--container-credentials-token-volume-name=volume",
        "--container-credentials-token-path=file",
        "--container-credentials-full-uri=http://[fd00::1]/v1/credentials",
    ]);
    let expected = Settings {
        annotation_prefix: "irsa.example".into(),
        audience: "aud".into(),
        expiration_seconds: 3600,
        expiration_jitter: true,
        region: Some("eu-west-1".into()),
        sts_regional_endpoints: true,
        role_session_name: true,
        mount_path: "/token".into(),
        role_names: RoleNames::OfAccount {
            account: Some("111122223333".into()),
            partition: Some("aws-cn".into()),
        },
        container_credentials: ContainerCredentials {
            audience: "agent".into(),
            mount_path: "/agent".into(),
            volume_name: "volume".into(),
            token_path: "file".into(),
            full_uri: "http://[fd00::1]/v1/credentials".into(),
        },
        skip_containers: "irsa.example/skip-containers".into(),
        token_expiration: "irsa.example/token-expiration".into(),
    };
    assert_eq!(given.settings(), expected);
}

#[test]
fn lifetimes_beyond_the_limits_are_limited() {
    for (given, used) in [
        ("100", 600),
        ("-1", 600),
        ("600", 600),
        ("86400", 86_400),
        ("86401", 86_400),
        ("4294967297", 86_400),
    ] {
        assert_eq!(
            args(&[&format!("--token-expiration={given}")]).settings().expiration_seconds,
            used,
            "{given}"
        );
    }
    assert_eq!(args(&["--aws-default-region="]).settings().region, None, "empty is absent");
}

#[test]
fn switches_accept_a_value_as_in_the_eks_webhook() {
    for (given, on) in [
        (&["--watch-config-map"] as &[&str], true),
        (&["--watch-config-map=true"], true),
        (&["--watch-config-map=false"], false),
        (&["--watch-config-map", "--watch-config-map=false"], false),
        (&["--watch-config-map", "--compose-role-arn"], true),
    ] {
        assert_eq!(args(given).injection.watch_config_map, on, "{given:?}");
    }
}

#[test]
fn the_last_of_repeated_flags_counts() {
    assert_eq!(args(&["--token-audience=first", "--token-audience=last"]).settings().audience, "last");
    let two = args(&["--client-ca-file=ca", "--client-name=a", "--client-name=b"]);
    assert_eq!(two.serving.client_name, ["a", "b"], "of this one there may be several");
}

#[test]
fn the_eks_webhook_s_other_names_are_accepted() {
    let given = args(&[
        "--metrics-port=9999",
        "--tls-cert=a",
        "--tls-key=b",
        "--service-account-lookup-grace-period=2s",
    ]);
    assert_eq!(
        (given.serving.health_port, given.kubernetes.lookup_timeout()),
        (9999, Duration::from_secs(2))
    );
    assert_eq!(given.serving.tls_cert_file.as_deref(), Some("a".as_ref()));
    assert_eq!(given.serving.tls_private_key_file.as_deref(), Some("b".as_ref()));
    let nothing = args(&["--service-account-lookup-grace-period=0s"]);
    assert_eq!(
        nothing.kubernetes.lookup_timeout(),
        args(&[]).kubernetes.lookup_timeout(),
        "in the EKS webhook it disables lookups"
    );
}

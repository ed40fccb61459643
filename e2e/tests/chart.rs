//! The values that the chart requires, and rights that a value takes away.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::{Command, Output};

use cluster::Tools;
use e2e::binaries::root;
use e2e::terminal::progress;
use serde_json::{Value, json};

const REQUIRED: [(&str, &str); 4] = [
    ("aws.roleARN", "arn:aws:iam::111122223333:role/podidentity-system/podidentity-operator.homelab"),
    ("aws.region", "eu-central-1"),
    ("operator.image.repository", "registry.example.com:5000/podidentity/operator"),
    ("webhook.image.repository", "webhook"),
];

/// `helm template` with these values.
fn render<'a>(values: impl IntoIterator<Item = (&'a str, &'a str)>) -> Output {
    let home = tempfile::tempdir().unwrap();
    let tools = Tools::chart(&progress).unwrap();
    let mut helm = Command::new(tools.path("helm"));
    helm.args(["template", "podidentity"]).arg(root().join("charts/pod-identity-operator"));
    helm.args(values.into_iter().map(|(name, value)| format!("--set={name}={value}")));
    // helm writes its own files to HOME.
    helm.env("HOME", home.path()).output().unwrap()
}

fn rendered(output: Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_error_names_a_missing_required_value() {
    let complete = rendered(render(REQUIRED));
    for image in [r#"image: "registry.example.com:5000/podidentity/operator:"#, r#"image: "webhook:"#] {
        assert!(complete.contains(image), "no {image} in {complete}");
    }
    for (missing, _) in REQUIRED {
        let output = render(REQUIRED.into_iter().filter(|(name, _)| *name != missing));
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success(), "rendered without {missing}");
        assert!(message.contains(&format!("{missing} is required")), "{missing}: {message}");
    }
}

/// The right to patch the webhook configuration is cluster-admin in effect: it is given only where the operator needs it.
#[test]
fn with_external_certificates_the_operator_has_no_right_on_configuration_and_secrets() {
    const FLAG: &str = "--webhook-certificates=external";
    for (certificates, expected) in [(None, true), (Some("Operator"), true), (Some("External"), false)] {
        let value = certificates.map(|value| ("webhook.certificates", value));
        let text = rendered(render(REQUIRED.into_iter().chain(value)));
        let objects: Vec<Value> =
            text.split("\n---\n").map(|object| serde_saphyr::from_str(object).unwrap()).collect();
        let operators = |kind: &str| {
            let is_it = |o: &&Value| o["kind"] == kind && o["metadata"]["name"] == "podidentity-operator";
            objects.iter().find(is_it).unwrap_or_else(|| panic!("no {kind}"))
        };
        let rules = |kind: &str, resource: &str| -> Vec<&Value> {
            let rules = operators(kind)["rules"].as_array().unwrap().iter();
            let names = |rule: &&Value| rule["resources"].to_string().contains(resource);
            rules.filter(names).collect()
        };
        let count = usize::from(expected);
        let configurations = rules("ClusterRole", "mutatingwebhookconfigurations");
        assert_eq!(configurations.len(), count, "{certificates:?}: {configurations:?}");
        let secrets = rules("Role", "secrets");
        assert_eq!(secrets.len(), count, "{certificates:?}: {secrets:?}");
        let arguments =
            operators("Deployment")["spec"]["template"]["spec"]["containers"][0]["args"].to_string();
        assert_eq!(arguments.contains(FLAG), !expected, "{certificates:?}: {arguments}");
        // What has nothing to do with certificates stays, and no other object gives the right back.
        assert_eq!(rules("ClusterRole", "podidentitybindings/status").len(), 1, "{certificates:?}");
        assert_eq!(rules("Role", "leases").len(), 2, "{certificates:?}");
        let gives_patch = |object: &&Value| {
            let mut rules = object["rules"].as_array().into_iter().flatten();
            let patches = |rule: &Value| {
                rule["resources"].to_string().contains("mutatingwebhookconfigurations")
                    && rule["verbs"].to_string().contains("patch")
            };
            object["kind"].as_str().is_some_and(|kind| kind.ends_with("Role")) && rules.any(patches)
        };
        assert_eq!(objects.iter().filter(gives_patch).count(), count, "{certificates:?}");
    }
    let output = render(REQUIRED.into_iter().chain([("webhook.certificates", "external")]));
    assert!(!output.status.success(), "another value is refused");
}

#[test]
fn rights_on_pods_and_workloads_are_given_only_where_a_value_says_so() {
    for (value, pods, workloads) in [
        (None, 1, 0),
        (Some(("operator.podWatch", "false")), 0, 0),
        (Some(("operator.restartMissing", "true")), 1, 1),
    ] {
        let text = rendered(render(REQUIRED.into_iter().chain(value)));
        let objects: Vec<Value> =
            text.split("\n---\n").map(|object| serde_saphyr::from_str(object).unwrap()).collect();
        let rules = |resource: &str| {
            let rules = objects.iter().filter_map(|object| object["rules"].as_array()).flatten();
            let names =
                |rule: &&Value| rule["resources"].as_array().is_some_and(|r| r.contains(&resource.into()));
            rules.filter(names).map(|rule| rule["verbs"].to_string()).collect::<Vec<_>>()
        };
        assert_eq!(rules("pods"), vec![r#"["list","watch"]"#; pods], "{value:?}");
        assert_eq!(rules("daemonsets"), vec![r#"["get","patch"]"#; workloads], "{value:?}");
        let flag = text.contains("--pod-watch=false");
        assert_eq!(flag, pods == 0, "{value:?}");
    }
}

#[test]
fn the_network_policies_admit_the_api_servers_at_their_own_addresses_and_ports() {
    const SETTINGS: [(&str, &str); 3] = [
        ("networkPolicy.apiServers.ports", "{443,16443}"),
        ("networkPolicy.apiServers.addresses[0]", "192.0.2.10/32"),
        ("networkPolicy.apiServers.addresses[1]", "2001:db8::1/128"),
    ];
    let egress = |values: &[(&str, &str)], name: &str| -> Vec<Value> {
        let text = rendered(render(REQUIRED.into_iter().chain(values.iter().copied())));
        let objects = text.split("\n---\n").map(|object| serde_saphyr::from_str::<Value>(object).unwrap());
        let is_it = |o: &Value| o["kind"] == "NetworkPolicy" && o["metadata"]["name"] == name;
        let policy = objects.into_iter().find(is_it).unwrap_or_else(|| panic!("no {name}"));
        policy["spec"]["egress"].as_array().unwrap().clone()
    };
    let dns = json!({"ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]});
    let aws = json!({"ports": [{"port": 443}]});
    let anywhere = json!({"ports": [{"port": 443}, {"port": 6443}]});
    assert_eq!(egress(&[], "podidentity-webhook"), [dns.clone(), anywhere.clone()]);
    assert_eq!(egress(&[], "podidentity-operator"), [dns.clone(), anywhere, aws.clone()]);
    let here = json!({
        "ports": [{"port": 443}, {"port": 16443}],
        "to": [{"ipBlock": {"cidr": "192.0.2.10/32"}}, {"ipBlock": {"cidr": "2001:db8::1/128"}}],
    });
    assert_eq!(egress(&SETTINGS, "podidentity-webhook"), [dns.clone(), here.clone()]);
    assert_eq!(egress(&SETTINGS, "podidentity-operator"), [dns.clone(), here, aws]);
    for (proxy, port) in [
        ("http://proxy.example.com:3128", 3128),
        ("http://user:secret@[2001:db8::1]:8080/", 8080),
        ("http://proxy.example.com", 80),
        ("https://proxy.example.com", 443),
    ] {
        let rules = egress(&[("proxy.https", proxy)], "podidentity-operator");
        assert_eq!(rules.last(), Some(&json!({"ports": [{"port": port}]})), "{proxy}");
        assert_eq!((rules.len(), egress(&[("proxy.https", proxy)], "podidentity-webhook").len()), (4, 2));
    }
    let refused = render(REQUIRED.into_iter().chain([("networkPolicy.apiServers.addresses[0]", "10.0.0.1")]));
    assert!(!refused.status.success(), "an address without its length is refused");
}

#[test]
fn a_proxy_is_set_for_the_operator_only() {
    let values = [("proxy.https", "http://proxy.example.com:3128"), ("proxy.noProxy", ".example.com")];
    let text = rendered(render(REQUIRED.into_iter().chain(values)));
    let objects = text.split("\n---\n").map(|object| serde_saphyr::from_str::<Value>(object).unwrap());
    let mut variables = Vec::new();
    for deployment in objects.filter(|object| object["kind"] == "Deployment") {
        let name = deployment["metadata"]["name"].as_str().unwrap().to_owned();
        let environment = deployment["spec"]["template"]["spec"]["containers"][0]["env"].clone();
        for variable in environment.as_array().into_iter().flatten() {
            if variable["name"].as_str().is_some_and(|name| name.ends_with("_PROXY")) {
                variables.push(format!("{name} {}={}", variable["name"], variable["value"]));
            }
        }
    }
    assert_eq!(
        variables,
        [
            r#"podidentity-operator "HTTPS_PROXY"="http://proxy.example.com:3128""#,
            r#"podidentity-operator "NO_PROXY"=".example.com""#,
        ]
    );
    assert!(!rendered(render(REQUIRED)).contains("_PROXY"));
}

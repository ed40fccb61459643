//! The values that the chart requires.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Command;

use cluster::Tools;
use e2e::binaries::root;
use e2e::terminal::progress;

#[test]
fn the_error_names_a_missing_required_value() {
    let required = [
        ("aws.roleARN", "arn:aws:iam::111122223333:role/podidentity-system/podidentity-operator.homelab"),
        ("aws.region", "eu-central-1"),
        ("operator.image.repository", "registry.example.com:5000/podidentity/operator"),
        ("webhook.image.repository", "webhook"),
    ];
    let home = tempfile::tempdir().unwrap();
    let tools = Tools::chart(&progress).unwrap();
    let render = |without: &str| {
        let mut helm = Command::new(tools.path("helm"));
        helm.args(["template", "podidentity"]).arg(root().join("charts/pod-identity-operator"));
        for (name, value) in required.iter().filter(|(name, _)| *name != without) {
            helm.arg(format!("--set={name}={value}"));
        }
        // helm writes its own files to HOME.
        helm.env("HOME", home.path()).output().unwrap()
    };
    let complete = render("");
    let rendered = String::from_utf8(complete.stdout).unwrap();
    assert!(complete.status.success(), "{}", String::from_utf8_lossy(&complete.stderr));
    for image in [r#"image: "registry.example.com:5000/podidentity/operator:"#, r#"image: "webhook:"#] {
        assert!(rendered.contains(image), "no {image} in {rendered}");
    }
    for (name, _) in required {
        let output = render(name);
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success(), "rendered without {name}");
        assert!(message.contains(&format!("{name} is required")), "{name}: {message}");
    }
}

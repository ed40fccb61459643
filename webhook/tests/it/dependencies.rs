//! The webhook is called for every pod, so it is small: it depends neither on the operator nor on an AWS SDK.

use std::collections::BTreeSet;
use std::process::Command;

#[test]
fn neither_operator_nor_aws_sdk() {
    // What is linked on this platform; `--offline` because all of it has just been built.
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--package", "webhook", "--edges", "normal", "--prefix", "none", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tree = String::from_utf8(output.stdout).unwrap();
    let names: BTreeSet<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(names.contains("crds") && names.contains("kube-client"), "the tree is read rightly: {names:?}");
    let unwanted: Vec<_> = names
        .iter()
        .filter(|name| **name == "operator" || (name.starts_with("aws-") && !name.starts_with("aws-lc-")))
        .collect();
    assert!(unwanted.is_empty(), "{unwanted:?}");
}

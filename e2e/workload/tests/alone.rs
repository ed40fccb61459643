//! Without an identity the program says so and fails: that is what a stranger's pod must look like.

use std::process::Command;

#[test]
fn without_an_identity_it_has_no_credentials() {
    let output = Command::new(env!("CARGO_BIN_EXE_workload"))
        .args(["get", "bucket", "key"])
        .env_clear()
        .env("AWS_REGION", "eu-central-1")
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .output()
        .expect("the program");
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("no credentials"), "{said}");
}

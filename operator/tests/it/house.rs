//! What holds of the house: pure files stay pure, and what the documentation and the chart say of the code is so.

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::{Args, Command};
use crds::Reason;
use operator::timings::Timings;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Decisions are values that tests compare: the files that make them know no client, no SDK, no clock, no chance.
#[test]
fn pure_files_are_pure() {
    const FORBIDDEN: [&str; 9] = [
        "kube::",
        "aws_sdk",
        "aws_config",
        "tokio",
        "Instant::now",
        "SystemTime",
        "Timestamp::now",
        "rand",
        "async ",
    ];
    let mut pure = Vec::new();
    let mut folders = vec![root().join("operator/src"), root().join("crds/src"), root().join("webhook/src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if std::fs::read_to_string(&path).unwrap().starts_with("//! PURE") {
                pure.push(path);
            }
        }
    }
    for wanted in [
        "issuer/decide.rs",
        "binding/decide.rs",
        "binding/target.rs",
        "binding/removal.rs",
        "certificates/decide.rs",
        "issuer/publication.rs",
        "oidc.rs",
        "grant.rs",
        "policy/trust.rs",
        "webhook/src/identity/decide.rs",
        "webhook/src/identity/mutate.rs",
        "webhook/src/protocol/review.rs",
    ] {
        assert!(pure.iter().any(|path| path.ends_with(wanted)), "{wanted} does not say that it is PURE");
    }
    for path in pure {
        let text = std::fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap();
        for line in code.lines().filter(|line| !line.trim_start().starts_with("//")) {
            let found = FORBIDDEN.iter().find(|word| line.contains(**word));
            assert!(found.is_none(), "{}: {line}", path.display());
        }
    }
}

#[test]
fn every_reason_is_explained_and_nothing_else_is() {
    let explained: Vec<String> = read("docs/reasons.md")
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .map(str::to_owned)
        .collect();
    let known: Vec<&str> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
    assert_eq!(explained, known);
}

#[test]
fn every_wait_is_a_flag_and_a_chart_value() {
    let command = Timings::augment_args(Command::new("operator"));
    let flags: BTreeSet<String> =
        command.get_arguments().filter_map(|a| a.get_long()).map(str::to_owned).collect();
    let schema: serde_json::Value =
        serde_json::from_str(&read("charts/pod-identity-operator/values.schema.json")).unwrap();
    let timings = &schema["properties"]["operator"]["properties"]["timings"];
    let values: BTreeSet<String> = timings["properties"]
        .as_object()
        .unwrap()
        .keys()
        .map(|key| {
            key.chars()
                .flat_map(|c| if c.is_uppercase() { vec!['-', c.to_ascii_lowercase()] } else { vec![c] })
                .collect()
        })
        .collect();
    assert_eq!(flags, values);
    assert_eq!(timings["additionalProperties"], false, "a misspelt wait is refused");
}

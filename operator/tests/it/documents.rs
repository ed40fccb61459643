//! The documentation and the chart agree with the code.

use std::collections::BTreeSet;

use clap::{Args, Command};
use crds::Reason;
use operator::timings::Timings;

use crate::structure::read;

#[test]
fn docs_reasons_explains_exactly_the_existing_reasons() {
    let explained: Vec<String> = read("docs/reasons.md")
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .map(str::to_owned)
        .collect();
    let known: Vec<&str> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
    assert_eq!(explained, known);
}

#[test]
fn every_flag_of_timings_is_a_chart_value() {
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
    assert_eq!(timings["additionalProperties"], false, "a misspelt value is refused");
}

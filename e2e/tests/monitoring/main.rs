//! Alerts and dashboard of the chart: every alert fires when it must and only then, and has a documented remedy.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use cluster::Tools;
use e2e::binaries::root;
use e2e::terminal::progress;
use serde_json::Value;

const RULES: &str = "charts/pod-identity-operator/monitoring/rules.yaml";
const DASHBOARD: &str = "charts/pod-identity-operator/monitoring/dashboard.json";
const CASES: &str = "e2e/tests/monitoring/rules_test.yaml";

#[test]
fn every_alert_fires_only_when_it_must() {
    let folder = tempfile::tempdir().unwrap();
    for file in [RULES, CASES] {
        let path = root().join(file);
        std::fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    let tools = Tools::chart(&progress).unwrap();
    for arguments in [
        ["check", "rules", "--lint=all", "--lint-fatal", "rules.yaml"].as_slice(),
        &["test", "rules", "rules_test.yaml"],
    ] {
        run(Command::new(tools.path("promtool")).args(arguments).current_dir(folder.path()));
    }
    // An alert without test cases would pass, too.
    let (mut firing, mut not_firing) = (BTreeSet::new(), BTreeSet::new());
    let cases = yaml(&read(CASES));
    for case in list(&cases, "/tests").iter().flat_map(|test| list(test, "/promql_expr_test")) {
        let expression = case["expr"].as_str().unwrap();
        if let Some(alert) =
            expression.strip_prefix("ALERTS{alertname=\"").and_then(|rest| rest.split('"').next())
        {
            let tested = if list(case, "/exp_samples").is_empty() { &mut not_firing } else { &mut firing };
            tested.insert(alert.to_owned());
        }
    }
    let alerts: BTreeSet<String> = alerts().into_iter().collect();
    assert_eq!(firing, alerts, "alerts with a test in which they fire");
    assert_eq!(not_firing, alerts, "alerts with a test in which they do not fire");
}

#[test]
fn every_alert_is_documented() {
    let explained: Vec<String> = read("docs/alerts.md")
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .map(str::to_owned)
        .collect();
    assert_eq!(explained, alerts());
    for rule in rules() {
        let anchor = format!("/docs/alerts.md#{}", rule["alert"].as_str().unwrap().to_lowercase());
        assert!(rule["annotations"]["runbook_url"].as_str().unwrap().ends_with(&anchor), "{rule}");
    }
}

/// The chart's objects contain the files, and the `PodMonitor`s select existing pods and ports.
#[test]
fn the_chart_installs_alerts_dashboard_and_monitors() {
    let home = tempfile::tempdir().unwrap();
    let tools = Tools::chart(&progress).unwrap();
    let mut helm = Command::new(tools.path("helm"));
    helm.args(["template", "podidentity"])
        .arg(root().join("charts/pod-identity-operator"))
        .args(["--set=aws.region=eu-central-1", "--set=monitoring.podMonitor.enabled=true"])
        .arg("--set=aws.roleARN=arn:aws:iam::111122223333:role/podidentity-system/podidentity-operator.homelab")
        .args(["--set=monitoring.rules.enabled=true", "--set=monitoring.dashboard.enabled=true"])
        .args(["--set=monitoring.rules.labels.release=prometheus"])
        .args(["--set=operator.image.repository=operator", "--set=webhook.image.repository=webhook"])
        // helm writes its own files to HOME.
        .env("HOME", home.path());
    let rendered = run(&mut helm);
    let objects: Vec<Value> =
        rendered.split("\n---\n").map(yaml).filter(|object| object["kind"].is_string()).collect();
    let of = |kind: &str, name: &str| -> &Value {
        let found = objects.iter().find(|o| o["kind"] == kind && o["metadata"]["name"] == name);
        found.unwrap_or_else(|| panic!("no {kind} {name}"))
    };

    let rule = of("PrometheusRule", "podidentity");
    assert_eq!(rule["spec"], yaml(&read(RULES)));
    assert_eq!(rule["metadata"]["labels"]["release"], "prometheus");

    let dashboard = of("ConfigMap", "podidentity-dashboard");
    assert_eq!(dashboard["metadata"]["labels"]["grafana_dashboard"], "1");
    let text = dashboard["data"]["podidentity.json"].as_str().unwrap();
    assert_eq!(yaml(text), yaml(&read(DASHBOARD)));

    for name in ["podidentity-operator", "podidentity-webhook"] {
        let pod = &of("Deployment", name)["spec"]["template"];
        let monitor = &of("PodMonitor", name)["spec"];
        let selected = monitor["selector"]["matchLabels"].as_object().unwrap();
        assert!(selected.iter().all(|(key, value)| pod["metadata"]["labels"][key] == *value), "{monitor}");
        let port = &monitor["podMetricsEndpoints"][0]["port"];
        assert!(list(&pod["spec"], "/containers/0/ports").iter().any(|p| p["name"] == *port), "{monitor}");
    }
}

fn rules() -> Vec<Value> {
    let rules = yaml(&read(RULES));
    list(&rules, "/groups").iter().flat_map(|group| list(group, "/rules").clone()).collect()
}

fn alerts() -> Vec<String> {
    rules().iter().map(|rule| rule["alert"].as_str().unwrap().to_owned()).collect()
}

fn list<'a>(value: &'a Value, pointer: &str) -> &'a Vec<Value> {
    value.pointer(pointer).and_then(Value::as_array).unwrap_or_else(|| panic!("{pointer} of {value}"))
}

fn read(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

fn yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap()
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let [stdout, stderr] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    assert!(output.status.success(), "{stdout}\n{stderr}");
    stdout
}

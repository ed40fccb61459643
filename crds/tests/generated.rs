//! The CRDs in the chart are those of the types, and meet the requirements of `GitOps` tools.

use std::path::Path;

#[test]
fn the_crds_in_the_chart_are_up_to_date() {
    for (file, text) in crds::generate::manifests() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/pod-identity-operator").join(file);
        let in_chart = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(in_chart == text, "{file} is stale: run `cargo run -p crds --bin crdgen`");
    }
}

#[test]
fn every_field_has_a_description_and_the_crds_are_small() {
    for (file, text) in crds::generate::manifests() {
        // Argo CD's client-side apply keeps the whole object in an annotation of at most 262,144 bytes.
        assert!(text.len() < 100_000, "{file} has {} bytes", text.len());
        // What `crds::generate` removes: a field without a value is absent, bounds are whole numbers, and `kubectl explain`
        // prints backticks unchanged.
        for removed in ["nullable", ".0\n", "`"] {
            let text = text.lines().skip(1).collect::<Vec<_>>().join("\n") + "\n";
            assert!(!text.contains(removed), "{file} contains {removed:?}");
        }
        let crd: serde_json::Value = serde_saphyr::from_str(&text).expect("YAML");
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        assert_eq!(schema["properties"]["status"]["default"], serde_json::json!({"observedGeneration": -1}));
        assert_described(&schema["properties"]["spec"], "spec");
        assert_described(&schema["properties"]["status"], "status");
    }
}

fn assert_described(schema: &serde_json::Value, path: &str) {
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        assert!(field["description"].as_str().is_some_and(|d| d.len() > 5), "{path} has no description");
        assert_described(field, &path);
        assert_described(&field["items"], &path);
    }
}

//! The chart's copy of the CRDs is what the types say, and what `GitOps` tools need of it holds.

use std::path::Path;

#[test]
fn the_charts_copy_is_fresh() {
    for (file, text) in crds::generate::manifests() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/pod-identity-operator").join(file);
        let copy = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(copy == text, "{file} is stale: run `cargo run -p crds --bin crdgen`");
    }
}

#[test]
fn every_field_is_described_and_the_crds_stay_small() {
    for (file, text) in crds::generate::manifests() {
        // Argo CD's client-side apply keeps the whole object in an annotation of at most 262,144 bytes.
        assert!(text.len() < 100_000, "{file} has {} bytes", text.len());
        // Absent is the one way to say nothing, bounds are whole numbers, and `kubectl explain` prints backticks as they are.
        for left in ["nullable", ".0\n", "`"] {
            let text = text.lines().skip(1).collect::<Vec<_>>().join("\n") + "\n";
            assert!(!text.contains(left), "{file} contains {left:?}");
        }
        let crd: serde_json::Value = serde_saphyr::from_str(&text).expect("YAML");
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        assert_eq!(schema["properties"]["status"]["default"], serde_json::json!({"observedGeneration": -1}));
        described(&schema["properties"]["spec"], "spec");
        described(&schema["properties"]["status"], "status");
    }
}

fn described(schema: &serde_json::Value, path: &str) {
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        assert!(field["description"].as_str().is_some_and(|d| d.len() > 5), "{path} has no description");
        described(field, &path);
        described(&field["items"], &path);
    }
}

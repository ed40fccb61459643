//! The fuzzer's corpus, replayed: every file through its target.

use std::path::Path;

#[path = "../../fuzz/src/targets.rs"]
mod targets;

fn replay(name: &str, target: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() >= 10, "{} files are no corpus", files.len());
    for file in files {
        let data = std::fs::read(&file).unwrap();
        let outcome = std::panic::catch_unwind(|| target(&data));
        assert!(outcome.is_ok(), "{}", file.display());
    }
}

#[test]
fn reviews() {
    replay("review", targets::review);
}

#[test]
fn pods() {
    replay("pod", targets::pod);
}

#[test]
fn annotations() {
    replay("annotations", targets::annotations);
}

#[test]
fn config_maps() {
    replay("config_map", targets::config_map);
}

//! Writes the CRD manifests into the chart.

use std::path::Path;

fn main() -> std::io::Result<()> {
    let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/pod-identity-operator");
    for (file, text) in crds::generate::manifests() {
        let path = chart.join(file);
        std::fs::create_dir_all(path.parent().expect("a file has a folder"))?;
        std::fs::write(&path, text)?;
        println!("wrote {}", path.display());
    }
    Ok(())
}

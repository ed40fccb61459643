//! This project's programs, which the images contain.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;

use anyhow::{Context, bail};

/// Where each program is.
#[derive(Debug, Clone)]
pub struct Binaries {
    directory: PathBuf,
}

const PROGRAMS: [&str; 4] = ["operator", "webhook", "aws-sim", "workload"];

/// The folders that each program is built from.
const SOURCES: [(&str, &[&str]); 4] = [
    ("operator", &["operator/src", "process/src", "crds/src"]),
    ("webhook", &["webhook/src", "process/src", "crds/src"]),
    ("aws-sim", &["e2e/aws-sim/src", "e2e/aws-sim-api/src"]),
    ("workload", &["e2e/workload/src"]),
];

impl Binaries {
    /// Builds them with the profile the caller was built with. Cargo's own progress is shown.
    pub fn build() -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.arg("build").current_dir(root());
        if !cfg!(debug_assertions) {
            command.arg("--release");
        }
        for program in PROGRAMS {
            command.args(["--package", program, "--bin", program]);
        }
        let status = command.stdin(Stdio::null()).status().context("cargo")?;
        if !status.success() {
            bail!("cargo build ended with {status}");
        }
        Self::built()
    }

    /// Those beside the running program: `cargo test` has built them for their packages' own tests.
    pub fn built() -> anyhow::Result<Self> {
        let own = std::env::current_exe()?;
        let directory = own.ancestors().skip(1).find(|folder| folder.join("operator").is_file());
        let directory =
            directory.context("the programs are not built: run `cargo build --workspace --bins`")?;
        Ok(Self { directory: directory.to_owned() })
    }

    /// [`Self::built`], and an error where one is older than a source: `cargo test --test system` alone builds none of
    /// them, and would test old programs.
    pub fn fresh() -> anyhow::Result<Self> {
        let binaries = Self::built()?;
        for (program, folders) in SOURCES {
            let built = std::fs::metadata(binaries.path(program)).context(program)?.modified()?;
            for folder in folders {
                if let Some(source) = newer(&root().join(folder), built)? {
                    bail!(
                        "{program} is older than {}: run `cargo test`, which builds all programs",
                        source.display()
                    );
                }
            }
        }
        Ok(binaries)
    }

    /// A program's file.
    #[must_use]
    pub fn path(&self, program: &str) -> PathBuf {
        self.directory.join(program)
    }
}

/// A file of the folder that was changed after a time.
fn newer(folder: &Path, than: SystemTime) -> std::io::Result<Option<PathBuf>> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let found = match entry.metadata()? {
            file if file.is_dir() => newer(&entry.path(), than)?,
            file => (file.modified()? > than).then(|| entry.path()),
        };
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// The project's folder.
#[must_use]
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

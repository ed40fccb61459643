//! Our own programs, as the images are made of.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

/// Where each program is.
#[derive(Debug, Clone)]
pub struct Binaries {
    directory: PathBuf,
}

const PROGRAMS: [&str; 4] = ["operator", "webhook", "aws-sim", "workload"];

impl Binaries {
    /// Builds them with the profile the caller was built with. Cargo's own progress is shown.
    pub fn build() -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.arg("build").current_dir(root());
        for program in PROGRAMS {
            command.args(["--package", program, "--bin", program]);
        }
        let status = command.stdin(Stdio::null()).status().context("cargo")?;
        if !status.success() {
            bail!("cargo build ended with {status}");
        }
        Self::built()
    }

    /// Those that stand beside the running program: `cargo test` has built them for their packages' own tests.
    pub fn built() -> anyhow::Result<Self> {
        let own = std::env::current_exe()?;
        let directory = own.ancestors().skip(1).find(|folder| folder.join("operator").is_file());
        let directory =
            directory.context("the programs are not built: run `cargo build --workspace --bins`")?;
        Ok(Self { directory: directory.to_owned() })
    }

    /// A program's file.
    #[must_use]
    pub fn path(&self, program: &str) -> PathBuf {
        self.directory.join(program)
    }
}

/// The project's folder.
#[must_use]
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

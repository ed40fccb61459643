//! Container images without a registry or a builder: one layer with a program and the libraries it is linked with, in an
//! OCI archive that containerd imports.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use data_encoding::HEXLOWER;
use serde_json::json;
use sha2::{Digest, Sha256};

/// A file of an image.
#[derive(Debug, Clone)]
pub struct File {
    /// Where in the image, without leading slash.
    pub path: String,
    /// Content.
    pub content: Vec<u8>,
    /// Permissions.
    pub mode: u32,
}

/// The contents of an image.
#[derive(Debug, Clone)]
pub struct Image<'a> {
    /// Name and tag.
    pub name: &'a str,
    /// The program; it becomes `/<file name>` and the entry point.
    pub program: &'a Path,
    /// Arguments of the entry point.
    pub arguments: &'a [&'a str],
    /// Further files.
    pub files: Vec<File>,
}

impl Image<'_> {
    /// Writes the archive.
    pub fn write(&self, archive: &Path) -> anyhow::Result<()> {
        let mut blobs = BTreeMap::new();
        let mut put = |media: &str, content: Vec<u8>| {
            let digest = digest(&content);
            let descriptor = json!({"mediaType": media, "digest": digest, "size": content.len()});
            blobs.insert(digest, content);
            descriptor
        };
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        // Not compressed: it does not leave this machine, and its digest is then the layer's `diff_id`, too.
        let layer = put("application/vnd.oci.image.layer.v1.tar", self.layer()?);
        let entry = std::iter::once(format!("/{}", self.file_name()))
            .chain(self.arguments.iter().map(|a| (*a).to_owned()));
        let config = json!({
            "architecture": architecture,
            "os": "linux",
            "config": {"Entrypoint": entry.collect::<Vec<_>>(), "Env": ["PATH=/bin:/"], "WorkingDir": "/"},
            "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
        });
        let config = put("application/vnd.oci.image.config.v1+json", serde_json::to_vec(&config)?);
        let media = "application/vnd.oci.image.manifest.v1+json";
        let manifest = json!({"schemaVersion": 2, "mediaType": media, "config": config, "layers": [layer]});
        let mut manifest = put(media, serde_json::to_vec(&manifest)?);
        manifest["platform"] = json!({"architecture": architecture, "os": "linux"});
        manifest["annotations"] = json!({"io.containerd.image.name": self.name});
        let index = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [manifest],
        });
        let mut tar = tar::Builder::new(std::fs::File::create(archive)?);
        append(&mut tar, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#, 0o644)?;
        append(&mut tar, "index.json", &serde_json::to_vec(&index)?, 0o644)?;
        for (digest, content) in &blobs {
            append(&mut tar, &format!("blobs/{}", digest.replace(':', "/")), content, 0o644)?;
        }
        tar.finish()?;
        Ok(())
    }

    fn file_name(&self) -> String {
        self.program.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    fn layer(&self) -> anyhow::Result<Vec<u8>> {
        let mut tar = tar::Builder::new(Vec::new());
        for (path, mode) in
            [("tmp/", 0o1777), ("etc/", 0o755), ("proc/", 0o755), ("sys/", 0o755), ("dev/", 0o755)]
        {
            let mut header = tar::Header::new_ustar();
            header.set_entry_type(tar::EntryType::Directory);
            header.set_mode(mode);
            header.set_size(0);
            tar.append_data(&mut header, path, std::io::empty())?;
        }
        append(&mut tar, "etc/passwd", b"root:x:0:0::/:/\nnonroot:x:65532:65532::/tmp:/\n", 0o644)?;
        append(&mut tar, "etc/nsswitch.conf", b"hosts: files dns\n", 0o644)?;
        append(&mut tar, &self.file_name(), &read(self.program)?, 0o755)?;
        for library in libraries(self.program)? {
            let path = library.strip_prefix("/").unwrap_or(&library).to_string_lossy().into_owned();
            append(&mut tar, &path, &read(&library)?, 0o755)?;
        }
        for File { path, content, mode } in &self.files {
            append(&mut tar, path, content, *mode)?;
        }
        Ok(tar.into_inner()?)
    }
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| path.display().to_string())
}

fn append<W: Write>(tar: &mut tar::Builder<W>, path: &str, content: &[u8], mode: u32) -> anyhow::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_mode(mode);
    header.set_size(content.len() as u64);
    Ok(tar.append_data(&mut header, path, content)?)
}

fn digest(content: &[u8]) -> String {
    format!("sha256:{}", HEXLOWER.encode(&Sha256::digest(content)))
}

/// What a program is linked with, the loader included; nothing for a static one. glibc opens its resolver at run time,
/// so it is added where glibc is.
fn libraries(program: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let output = Command::new("ldd").arg(program).output().context("ldd")?;
    if !output.status.success() {
        let printed = String::from_utf8_lossy(&output.stderr);
        if printed.contains("not a dynamic executable")
            || String::from_utf8_lossy(&output.stdout).contains("not a dynamic")
        {
            return Ok(Vec::new());
        }
        bail!("ldd {}: {printed}", program.display());
    }
    let text = String::from_utf8(output.stdout)?;
    let mut found: Vec<PathBuf> = text
        .lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
        .map(PathBuf::from)
        .collect();
    let libc = found.iter().find(|path| path.ends_with("libc.so.6")).cloned();
    if let Some(resolver) =
        libc.map(|libc| libc.with_file_name("libnss_dns.so.2")).filter(|path| path.is_file())
    {
        found.push(resolver);
    }
    Ok(found)
}

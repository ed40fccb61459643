//! The structure of the code: PURE files are pure, and there are no import cycles between files or folders.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use syn::visit::{self, Visit};
use syn::{Attribute, ItemMod, ItemUse, UseTree};

/// A module's path in its crate; the path of the root is empty.
type Module = Vec<String>;

/// Texts that a PURE file must not contain: clients, SDKs, clocks and randomness.
const IMPURE: [&str; 9] = [
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

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Reads a file of the repository.
pub fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Whether the repository has a file or folder of that path.
pub fn exists(path: &str) -> bool {
    root().join(path).exists()
}

/// The names of the files in a folder of the repository, sorted.
pub fn files(folder: &str) -> Vec<String> {
    let entries = std::fs::read_dir(root().join(folder)).unwrap_or_else(|error| panic!("{folder}: {error}"));
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort_unstable();
    names
}

/// One source file and the modules of its crate that it uses outside tests.
struct Source {
    text: String,
    uses: BTreeSet<Module>,
}

impl Source {
    fn is_pure(&self) -> bool {
        self.text.starts_with("//! PURE")
    }
}

/// All modules of a crate.
fn modules(name: &str) -> BTreeMap<Module, Source> {
    let mut files = BTreeMap::new();
    let src = root().join(name).join("src");
    let mut folders = vec![src.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if let Some(module) = module_of(path.strip_prefix(&src).unwrap()) {
                files.insert(module, std::fs::read_to_string(&path).unwrap());
            }
        }
    }
    let known: BTreeSet<Module> = files.keys().cloned().collect();
    let source = |(module, text): (Module, String)| {
        let mut finder =
            Finder { module: &module, known: &known, names: BTreeMap::new(), uses: BTreeSet::new() };
        let file = syn::parse_file(&text).unwrap();
        // Imports first: an expression may use an import below it.
        file.items.iter().for_each(|item| {
            if let syn::Item::Use(import) = item {
                finder.import(import);
            }
        });
        finder.visit_file(&file);
        let mut uses = finder.uses;
        uses.remove(&module);
        (module, Source { text, uses })
    };
    files.into_iter().map(source).collect()
}

/// The module of a file; programs are not part of their crate's library.
fn module_of(path: &Path) -> Option<Module> {
    let mut module: Module = path.components().map(|c| c.as_os_str().to_str().unwrap().to_owned()).collect();
    let file = module.pop()?;
    match file.as_str() {
        "lib.rs" | "mod.rs" => Some(module),
        "main.rs" => None,
        _ if module.first().is_some_and(|folder| folder == "bin") => None,
        _ => {
            module.push(file.strip_suffix(".rs")?.to_owned());
            Some(module)
        }
    }
}

/// Finds the modules that a file uses.
struct Finder<'a> {
    module: &'a Module,
    known: &'a BTreeSet<Module>,
    /// Names of modules in the file, by its imports.
    names: BTreeMap<String, Module>,
    uses: BTreeSet<Module>,
}

impl Finder<'_> {
    fn import(&mut self, import: &ItemUse) {
        if is_test(&import.attrs) {
            return;
        }
        let mut paths = Vec::new();
        flatten(&import.tree, &mut Vec::new(), &mut paths);
        for (path, name) in paths {
            if let Some(absolute) = self.absolute(&path) {
                if self.known.contains(&absolute) {
                    self.names.insert(name, absolute.clone());
                }
                self.add_use(&absolute);
            }
        }
    }

    /// The path from the crate's root; `None` for paths in other crates.
    fn absolute(&self, path: &[String]) -> Option<Module> {
        let (first, rest) = path.split_first()?;
        let mut base = match first.as_str() {
            "crate" => Vec::new(),
            "self" => self.module.clone(),
            "super" => self.module[..self.module.len().checked_sub(1)?].to_vec(),
            name => self.names.get(name).cloned().or_else(|| {
                let child = [self.module.as_slice(), &[name.to_owned()]].concat();
                self.known.contains(&child).then_some(child)
            })?,
        };
        for part in rest {
            if part == "super" {
                base.pop()?;
            } else {
                base.push(part.clone());
            }
        }
        Some(base)
    }

    /// Adds the innermost module of a path to those in use.
    fn add_use(&mut self, path: &[String]) {
        let innermost = (0..=path.len()).rev().map(|length| path[..length].to_vec());
        let module = innermost.into_iter().find(|module| self.known.contains(module));
        self.uses.extend(module.filter(|module| !module.is_empty()));
    }
}

impl<'ast> Visit<'ast> for Finder<'_> {
    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        if !is_test(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_use(&mut self, import: &'ast ItemUse) {
        self.import(import);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let parts: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        // A path of one name is a type or a value, and its import has been counted.
        if parts.len() > 1
            && let Some(absolute) = self.absolute(&parts)
        {
            self.add_use(&absolute);
        }
        visit::visit_path(self, path);
    }
}

fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.parse_args::<syn::Path>().is_ok_and(|condition| condition.is_ident("test"))
    })
}

/// The paths of an import, each with its name in the file.
fn flatten(tree: &UseTree, prefix: &mut Vec<String>, paths: &mut Vec<(Vec<String>, String)>) {
    let full = |prefix: &[String], name: &str| {
        if name == "self" { prefix.to_vec() } else { [prefix, &[name.to_owned()]].concat() }
    };
    match tree {
        UseTree::Path(path) => {
            prefix.push(path.ident.to_string());
            flatten(&path.tree, prefix, paths);
            prefix.pop();
        }
        UseTree::Name(name) => {
            let path = full(prefix, &name.ident.to_string());
            let name = path.last().cloned().unwrap_or_default();
            paths.push((path, name));
        }
        UseTree::Rename(rename) => {
            paths.push((full(prefix, &rename.ident.to_string()), rename.rename.to_string()));
        }
        UseTree::Glob(_) => paths.push((prefix.clone(), String::new())),
        UseTree::Group(group) => group.items.iter().for_each(|tree| flatten(tree, prefix, paths)),
    }
}

/// A cycle of a graph, if it has one.
fn cycle<T: Ord + Clone>(graph: &BTreeMap<T, BTreeSet<T>>) -> Option<Vec<T>> {
    fn from<T: Ord + Clone>(
        node: &T,
        graph: &BTreeMap<T, BTreeSet<T>>,
        path: &mut Vec<T>,
        done: &mut BTreeSet<T>,
    ) -> Option<Vec<T>> {
        if let Some(begin) = path.iter().position(|seen| seen == node) {
            return Some(path[begin..].to_vec());
        }
        if !done.insert(node.clone()) {
            return None;
        }
        path.push(node.clone());
        let found = graph.get(node).into_iter().flatten().find_map(|next| from(next, graph, path, done));
        path.pop();
        found
    }
    let mut done = BTreeSet::new();
    graph.keys().find_map(|node| from(node, graph, &mut Vec::new(), &mut done))
}

/// Decisions are values that tests compare: the files with decisions use no client, SDK, clock or randomness, and no file that
/// does.
#[test]
fn pure_files_are_pure_and_use_only_pure_files() {
    let mut pure = Vec::new();
    for name in ["operator", "crds", "webhook"] {
        let modules = modules(name);
        for (module, source) in modules.iter().filter(|(_, source)| source.is_pure()) {
            let path = format!("{name}::{}", module.join("::"));
            let code = source.text.split("#[cfg(test)]").next().unwrap();
            for line in code.lines().filter(|line| !line.trim_start().starts_with("//")) {
                let found = IMPURE.iter().find(|text| line.contains(**text));
                assert!(found.is_none(), "{path}: {line}");
            }
            for used in &source.uses {
                assert!(modules[used].is_pure(), "{path} is PURE and uses {}, which is not", used.join("::"));
            }
            pure.push(path);
        }
    }
    for expected in [
        "operator::issuer::decide",
        "operator::issuer::verdict",
        "operator::issuer::publication",
        "operator::binding::decide",
        "operator::binding::verdict",
        "operator::binding::removal",
        "operator::binding::role::trust",
        "operator::certificates::decide",
        "operator::cluster::references",
        "operator::ownership",
        "operator::grant",
        "operator::oidc",
        "operator::policy::trust",
    ] {
        assert!(pure.iter().any(|path| path == expected), "{expected} is not marked PURE");
    }
}

#[test]
fn there_are_no_import_cycles_between_files_or_folders() {
    for name in ["operator", "crds", "webhook", "process"] {
        let modules = modules(name);
        let files: BTreeMap<Module, BTreeSet<Module>> =
            modules.iter().map(|(module, source)| (module.clone(), source.uses.clone())).collect();
        assert_eq!(cycle(&files), None, "files of {name}");

        // Between modules of one folder, each with all its submodules.
        let mut siblings: BTreeMap<Module, BTreeSet<Module>> = BTreeMap::new();
        for (module, source) in &modules {
            for used in &source.uses {
                let common = module.iter().zip(used).take_while(|(a, b)| a == b).count();
                if common < module.len() && common < used.len() {
                    siblings.entry(module[..=common].to_vec()).or_default().insert(used[..=common].to_vec());
                }
            }
        }
        assert_eq!(cycle(&siblings), None, "folders of {name}");
    }
}

#[test]
fn cycles_and_imports_are_found() {
    let edges = |list: &[(&str, &str)]| {
        let mut graph: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (from, to) in list {
            graph.entry((*from).into()).or_default().insert((*to).into());
        }
        graph
    };
    assert_eq!(cycle(&edges(&[("a", "b"), ("b", "c"), ("a", "c")])), None);
    assert_eq!(cycle(&edges(&[("a", "b"), ("b", "c"), ("c", "b")])), Some(vec!["b".into(), "c".into()]));

    let text = "use super::{observe::Observed, decide as d};\nuse crate::aws::model::{self, Role};\n\
                #[cfg(test)]\nmod tests { use crate::run::X; }\nfn f() { d::due(); act::step(); model::x(); }";
    let known: BTreeSet<Module> =
        ["binding", "binding::observe", "binding::decide", "binding::role", "binding::role::act"]
            .iter()
            .chain(&["aws", "aws::model", "run"])
            .map(|path| path.split("::").map(str::to_owned).collect())
            .collect();
    let module: Module = vec!["binding".into(), "role".into()];
    let mut finder = Finder { module: &module, known: &known, names: BTreeMap::new(), uses: BTreeSet::new() };
    finder.visit_file(&syn::parse_file(text).unwrap());
    let found: Vec<String> = finder.uses.iter().map(|module| module.join("::")).collect();
    assert_eq!(found, ["aws::model", "binding::decide", "binding::observe", "binding::role::act"]);
}

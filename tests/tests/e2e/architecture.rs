//! What `ls` and Cargo promise: which room may depend on which, and what every file opens with.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent()
        .expect("the crate lies in the workspace")
        .to_owned()
}

/// Package name to the names of its direct dependencies; `dev` adds those of tests.
struct Graph {
    normal: BTreeMap<String, BTreeSet<String>>,
    ours: BTreeSet<String>,
}

impl Graph {
    fn read() -> Graph {
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
        let output = Command::new(cargo)
            .args(["metadata", "--format-version", "1", "--offline"])
            // What other systems need has not been downloaded.
            .args([
                "--filter-platform",
                &format!("{}-unknown-linux-gnu", std::env::consts::ARCH),
            ])
            .current_dir(root())
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let array = |value: &serde_json::Value| value.as_array().cloned().unwrap_or_default();
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let names: BTreeMap<String, String> = array(&metadata["packages"])
            .iter()
            .map(|p| (text(&p["id"]), text(&p["name"])))
            .collect();
        let ours = array(&metadata["workspace_members"])
            .iter()
            .map(|id| names[&text(id)].clone())
            .collect();
        let mut normal: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for node in array(&metadata["resolve"]["nodes"]) {
            let targets = normal.entry(names[&text(&node["id"])].clone()).or_default();
            for dep in array(&node["deps"]) {
                let is_normal = array(&dep["dep_kinds"])
                    .iter()
                    .any(|kind| kind["kind"].is_null());
                if is_normal {
                    targets.insert(names[&text(&dep["pkg"])].clone());
                }
            }
        }
        Graph { normal, ours }
    }

    /// Everything that ends up in the same executable.
    fn reachable(&self, package: &str) -> BTreeSet<String> {
        let mut seen = BTreeSet::new();
        let mut todo = vec![package.to_owned()];
        while let Some(next) = todo.pop() {
            for dep in self.normal.get(&next).into_iter().flatten() {
                if seen.insert(dep.clone()) {
                    todo.push(dep.clone());
                }
            }
        }
        assert!(self.normal.contains_key(package), "no package {package}");
        seen
    }
}

/// Crates that do I/O, or bring a runtime that does.
const IO: [&str; 11] = [
    "mio",
    "socket2",
    "rustls",
    "rusqlite",
    "tokio",
    "async-std",
    "smol",
    "ldap3",
    "signal-hook",
    "crossbeam-channel",
    "tracing-subscriber",
];

#[test]
fn the_mux_is_blind() {
    let graph = Graph::read();
    let reached = graph.reachable("isthmus-mux");
    for forbidden in [
        "isthmus-xmpp",
        "isthmus-store",
        "isthmus-directory",
        "isthmus-imserver",
        "rxml",
        "quick-xml",
    ] {
        assert!(
            !reached.contains(forbidden),
            "mux reaches {forbidden}: it must never parse XMPP"
        );
    }
}

#[test]
fn the_protocol_rooms_cannot_do_io() {
    let graph = Graph::read();
    for room in ["isthmus-proto", "isthmus-xmpp"] {
        let reached = graph.reachable(room);
        for forbidden in IO {
            assert!(!reached.contains(forbidden), "{room} reaches {forbidden}");
        }
    }
}

#[test]
fn dependencies_point_one_way() {
    let graph = Graph::read();
    let allowed: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("isthmus-proto", &[][..]),
        ("isthmus-xmpp", &[][..]),
        ("isthmus-mux", &["isthmus-proto"][..]),
        // Local accounts live in the store.
        ("isthmus-directory", &["isthmus-xmpp", "isthmus-store"][..]),
        ("isthmus-store", &["isthmus-xmpp"][..]),
        (
            "isthmus-imserver",
            &[
                "isthmus-proto",
                "isthmus-xmpp",
                "isthmus-directory",
                "isthmus-store",
                "isthmus-mux",
            ][..],
        ),
    ]);
    for (room, allowed) in allowed {
        let reached = graph.reachable(room);
        let wrong: Vec<&String> = reached
            .iter()
            .filter(|dep| graph.ours.contains(*dep) && !allowed.contains(&dep.as_str()))
            .collect();
        assert!(wrong.is_empty(), "{room} must not depend on {wrong:?}");
    }
}

/// Only for the LDAP library, which runs a small one inside each call of a directory worker.
#[test]
fn no_room_brings_an_async_runtime_but_for_ldap() {
    let graph = Graph::read();
    let runtimes = ["tokio", "async-std", "smol"];
    let reached = graph.reachable("isthmus-mux");
    for runtime in runtimes {
        assert!(!reached.contains(runtime), "the mux reaches {runtime}");
    }
    let reached = graph.reachable("isthmus-imserver");
    let of_ldap = graph.reachable("ldap3");
    for (package, targets) in &graph.normal {
        if !reached.contains(package) || of_ldap.contains(package) || package == "ldap3" {
            continue;
        }
        for runtime in runtimes {
            assert!(!targets.contains(runtime), "{package} brings {runtime}");
        }
    }
}

fn rust_files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if path.is_dir() {
            if !matches!(&*name, "target" | "var" | "node_modules" | "corpus")
                && !name.starts_with('.')
            {
                rust_files(&path, found);
            }
        } else if name.ends_with(".rs") {
            found.push(path);
        }
    }
}

/// The style rules a program can see (STYLE idea 7: a program ratchets style, not reviewers).
#[test]
fn every_file_keeps_the_house_rules() {
    let mut files = Vec::new();
    rust_files(&root(), &mut files);
    assert!(files.len() > 20, "where are the sources?");
    let mut wrong = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let name = file
            .strip_prefix(root())
            .unwrap_or(&file)
            .display()
            .to_string();
        if !text.starts_with("//!") {
            wrong.push(format!(
                "{name}: does not open with //! saying what it is for"
            ));
        }
        // Cargo takes every other file in `tests/` for a test of its own.
        if name.ends_with("mod.rs") && !name.contains("tests/") {
            wrong.push(format!("{name}: a module is a file beside its folder"));
        }
        let is_this = name.ends_with("architecture.rs");
        let is_test = name.contains("tests/") || name.contains("/tests.rs");
        if text.lines().count() > 900 && !is_test {
            wrong.push(format!("{name}: more than 900 lines"));
        }
        // Tests wait for conditions.
        if is_test && !is_this && text.contains("thread::sleep") {
            wrong.push(format!("{name}: sleeps"));
        }
        for word in ["#[ignore", "FIXME", "todo!(", "unimplemented!("] {
            if text.contains(word) && !is_this {
                wrong.push(format!("{name}: contains {word}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

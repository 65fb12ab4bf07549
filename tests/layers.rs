//! Imports go down only: `net → ipvs → {xdp, host, config, nanny, pulse} → director → admin → bin`; siblings do not see each other.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Each layer with those it may import, itself left out.
const MAY_IMPORT: [(&str, &[&str]); 9] = [
    ("net", &[]),
    ("ipvs", &["net"]),
    ("xdp", &["net", "ipvs"]),
    ("host", &["net", "ipvs"]),
    ("config", &["net", "ipvs"]),
    ("nanny", &["net", "ipvs"]),
    ("pulse", &["net", "ipvs"]),
    ("director", &["net", "ipvs", "xdp", "host", "config", "nanny", "pulse"]),
    ("admin", &["net", "ipvs", "xdp", "host", "config", "nanny", "pulse", "director"]),
];

fn sources(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).expect("src is readable") {
        let path = entry.expect("src is readable").path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// The layer names after `crate::` in a line, doc links included: a doc that needs a higher layer explains itself badly.
fn imported(line: &str) -> impl Iterator<Item = &str> {
    line.split("crate::").skip(1).map(|rest| {
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        &rest[..end]
    })
}

#[test]
fn imports_go_down_only() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let allowed: BTreeMap<&str, &[&str]> = MAY_IMPORT.into_iter().collect();
    let mut wrong = Vec::new();
    for (layer, below) in &allowed {
        for path in sources(&root.join(layer)) {
            let text = fs::read_to_string(&path).expect("a source is readable");
            for (number, line) in text.lines().enumerate() {
                for name in imported(line) {
                    if allowed.contains_key(name) && name != *layer && !below.contains(&name) {
                        wrong.push(format!("{}:{}: {layer} imports {name}", path.display(), number + 1));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "imports against the direction of the layers:\n{}", wrong.join("\n"));
}

#[test]
fn unsafe_code_is_in_xdp_alone() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let allows = |path: &PathBuf| {
        fs::read_to_string(path).expect("a source is readable").contains("allow(unsafe_code")
    };
    let outside: Vec<_> = sources(&root)
        .into_iter()
        .filter(|path| !path.starts_with(root.join("xdp")))
        .filter(allows)
        .collect();
    assert!(outside.is_empty(), "these allow unsafe code: {outside:?}");
}

//! Holds the built dependency graph to its rules: one cryptography provider, listed licences only, nothing from
//! outside the registry, and a stated reason for every direct dependency.
//!
//! "Built" is what `cargo tree` resolves for this machine with the crate's own features, tests and benches included:
//! `cargo metadata` alone also lists optional packages that no build ever compiles.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot read the graph must fail"
)]

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use cargo_metadata::{MetadataCommand, Package};

/// Licences that allow use in a closed product without more than keeping their notice.
const LICENCES: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Zlib",
];

/// A second TLS or cryptography library: twice the advisories, twice the code, and two ideas of a valid certificate.
const FORBIDDEN: &[&str] = &[
    "boring",
    "mbedtls",
    "native-tls",
    "openssl",
    "openssl-sys",
    "ring",
    "rustls-graviola",
    "rustls-openssl",
    "rustls-rustcrypto",
];

/// Tables of the manifest whose entries are dependencies.
const DEPENDENCY_TABLES: &[&str] = &["dependencies", "dev-dependencies", "build-dependencies"];

#[test]
fn one_cryptography_provider() {
    let names: BTreeSet<String> = built().into_iter().map(|(name, _)| name).collect();
    assert!(names.contains("aws-lc-rs"), "aws-lc-rs is the provider");
    for name in FORBIDDEN {
        assert!(
            !names.contains(*name),
            "{name} is in the graph: cargo tree -i {name}"
        );
    }
}

#[test]
fn only_listed_licences() {
    let mut wrong = Vec::new();
    for package in built_packages() {
        let licence = package.license.as_deref().unwrap_or("");
        match Expression::parse(licence) {
            Ok(expression) if expression.allowed() => {}
            Ok(_) => wrong.push(format!(
                "{} {}: {licence}: not listed",
                package.name, package.version
            )),
            Err(reason) => wrong.push(format!(
                "{} {}: {licence:?}: {reason}",
                package.name, package.version
            )),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn everything_comes_from_the_registry() {
    let mut wrong = Vec::new();
    for package in built_packages() {
        let ours = package.name.as_str() == env!("CARGO_PKG_NAME");
        let registry = package
            .source
            .as_ref()
            .is_some_and(|source| source.repr.starts_with("registry+"));
        if !ours && !registry {
            wrong.push(format!(
                "{} {}: {:?}",
                package.name, package.version, package.source
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_direct_dependency_says_why() {
    let manifest = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")).unwrap();
    let unexplained = unexplained_dependencies(&manifest);
    assert!(
        unexplained.is_empty(),
        "no comment above: {}",
        unexplained.join(", ")
    );
}

#[test]
fn finds_dependencies_without_a_reason() {
    let check = |manifest: &str, expected: &[&str]| {
        assert_eq!(unexplained_dependencies(manifest), expected, "{manifest}");
    };
    check("[dependencies]\n# Why.\na = \"1\"\n", &[]);
    check(
        "[dependencies]\n# Why.\na = \"1\"\nb = { version = \"1\" }\n",
        &["b"],
    );
    check("[dev-dependencies]\n# --- a heading\na = \"1\"\n", &["a"]);
    check(
        "[target.'cfg(unix)'.dependencies]\n\na = { git = \"x\" }\n",
        &["a"],
    );
    check("[package]\nname = \"x\"\n", &[]);
}

#[test]
fn evaluates_licence_expressions() {
    let check = |expression: &str, allowed: bool| {
        assert_eq!(
            Expression::parse(expression).map(|parsed| parsed.allowed()),
            Ok(allowed),
            "{expression}"
        );
    };
    check("MIT", true);
    check("GPL-3.0-only", false);
    check("MIT OR GPL-3.0-only", true);
    check("MIT AND GPL-3.0-only", false);
    check("MIT/Apache-2.0", true);
    check("Apache-2.0 / MIT", true);
    check("(MIT OR GPL-3.0-only) AND Unicode-3.0", true);
    check("(MIT AND GPL-3.0-only) OR (ISC AND GPL-2.0-only)", false);
    // AND binds more tightly than OR.
    check("MIT OR GPL-2.0-only AND GPL-3.0-only", true);
    check("Apache-2.0 WITH LLVM-exception", true);
    check("GPL-2.0-only WITH Classpath-exception-2.0", false);
    for broken in ["", "MIT OR", "(MIT", "MIT)", "AND MIT", "MIT Apache-2.0"] {
        assert!(Expression::parse(broken).is_err(), "{broken:?}");
    }
}

/// Name and version of every package compiled for this machine, tests and benches included.
fn built() -> BTreeSet<(String, String)> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--prefix", "none"])
        .args(["--edges", "normal,build,dev", "--format", "{p}"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .filter(|line| !line.is_empty())
        .map(|line| {
            let mut words = line.split_whitespace();
            let name = words.next().unwrap();
            let version = words.next().unwrap().trim_start_matches('v');
            (name.to_owned(), version.to_owned())
        })
        .collect()
}

fn built_packages() -> Vec<Package> {
    let metadata = MetadataCommand::new()
        .cargo_path(env!("CARGO"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .other_options(["--locked".to_owned()])
        .exec()
        .unwrap();
    let built = built();
    let packages: Vec<Package> = metadata
        .packages
        .into_iter()
        .filter(|package| built.contains(&(package.name.to_string(), package.version.to_string())))
        .collect();
    assert_eq!(
        packages.len(),
        built.len(),
        "cargo tree and cargo metadata disagree about the graph"
    );
    packages
}

/// Names of dependencies whose preceding line is not a comment (`# ---` headings explain nothing).
fn unexplained_dependencies(manifest: &str) -> Vec<String> {
    let mut unexplained = Vec::new();
    let mut table = "";
    let mut previous = "";
    for line in manifest.lines().map(str::trim) {
        if let Some(header) = line.strip_prefix('[') {
            table = header.trim_end_matches(']');
        }
        let is_dependency = DEPENDENCY_TABLES
            .iter()
            .any(|name| table.rsplit('.').next() == Some(*name));
        if let Some((name, _)) = line.split_once(" = ")
            && is_dependency
            && !line.starts_with('#')
            && (!previous.starts_with('#') || previous.starts_with("# ---"))
        {
            unexplained.push(name.to_owned());
        }
        previous = line;
    }
    unexplained
}

/// An SPDX licence expression. Cargo's old `/` means OR.
#[derive(Debug, PartialEq)]
enum Expression {
    Licence(String),
    All(Vec<Self>),
    Any(Vec<Self>),
}

impl Expression {
    fn parse(text: &str) -> Result<Self, String> {
        let spaced = text
            .replace('(', " ( ")
            .replace(')', " ) ")
            .replace('/', " OR ");
        let words: Vec<&str> = spaced.split_whitespace().collect();
        let mut words = words.as_slice();
        let parsed = Self::any(&mut words)?;
        match words.first() {
            None => Ok(parsed),
            Some(word) => Err(format!("unexpected {word}")),
        }
    }

    fn any(words: &mut &[&str]) -> Result<Self, String> {
        let mut terms = vec![Self::all(words)?];
        while take(words, "OR") {
            terms.push(Self::all(words)?);
        }
        Ok(Self::Any(terms))
    }

    fn all(words: &mut &[&str]) -> Result<Self, String> {
        let mut terms = vec![Self::term(words)?];
        while take(words, "AND") {
            terms.push(Self::term(words)?);
        }
        Ok(Self::All(terms))
    }

    fn term(words: &mut &[&str]) -> Result<Self, String> {
        if take(words, "(") {
            let inside = Self::any(words)?;
            return if take(words, ")") {
                Ok(inside)
            } else {
                Err("a parenthesis stays open".to_owned())
            };
        }
        let mut licence = identifier(words)?;
        if take(words, "WITH") {
            licence = format!("{licence} WITH {}", identifier(words)?);
        }
        Ok(Self::Licence(licence))
    }

    fn allowed(&self) -> bool {
        match self {
            Self::Licence(name) => LICENCES.contains(&name.as_str()),
            Self::All(terms) => terms.iter().all(Self::allowed),
            Self::Any(terms) => terms.iter().any(Self::allowed),
        }
    }
}

/// Consumes the next word if it is this one.
fn take(words: &mut &[&str], word: &str) -> bool {
    match words.split_first() {
        Some((first, rest)) if *first == word => {
            *words = rest;
            true
        }
        _ => false,
    }
}

fn identifier(words: &mut &[&str]) -> Result<String, String> {
    match words.split_first() {
        Some((first, rest)) if !["AND", "OR", "WITH", "(", ")"].contains(first) => {
            *words = rest;
            Ok((*first).to_owned())
        }
        Some((first, _)) => Err(format!("expected a licence, found {first}")),
        None => Err("expected a licence, found the end".to_owned()),
    }
}

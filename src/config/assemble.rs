//! Texts to one whole: every file read, names checked over all of them, broken included files replaced by
//! their last good text or left out.
//!
//! A mistake in the main file refuses the whole. A mistake in an included file is a warning that concerns
//! that file alone. Where two files claim one name, the one whose text has not changed since the last good
//! configuration keeps it, so that a newcomer cannot take it away. A pattern of `include` that matched files and
//! matches none any more is a folder that is not mounted yet, or is being copied anew: its files go on.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use crate::config::claims::{Claims, Reader};
use crate::config::file;
use crate::config::mistake::{Finding, Mistake, Mistakes, located};
use crate::config::reader::At;
use crate::config::settings::{self, Settings, declared};
use crate::config::source::Source;
use crate::config::text::{FileText, Texts};
use crate::control::declare::{Completeness, Declaration};
use crate::model::{NamePattern, TenantId};

/// A configuration whose files agree with each other.
#[derive(Debug)]
pub(super) struct Assembled<'t> {
    pub(super) settings: Settings,
    pub(super) main: &'t Source,
    /// The included files that take part, in the order of their paths.
    pub(super) included: Vec<Included<'t>>,
    pub(super) claims: Claims<'t>,
    /// Mistakes of included files.
    pub(super) warnings: Vec<Mistake>,
}

/// An included file that takes part.
#[derive(Debug)]
pub(super) struct Included<'t> {
    pub(super) source: &'t Source,
    declaration: Declaration,
    /// The hosts that it routes.
    hosts: Vec<At<NamePattern>>,
    /// The authorities that its tenants choose.
    chosen: Vec<At<String>>,
}

/// Puts the texts together; `previous` is the last good configuration.
///
/// # Errors
/// The mistakes of the main file, followed by those of included ones.
pub(super) fn assemble<'t>(
    texts: &'t Texts,
    previous: Option<&'t Texts>,
) -> Result<Assembled<'t>, Vec<Mistake>> {
    let source = match &texts.main {
        FileText::Read(source) => source,
        FileText::Unreadable(mistake) => return Err(vec![mistake.clone()]),
    };
    let mistakes = Mistakes::new(source);
    let main = file::read_main(source, &mistakes);
    let platform = Claims::of_platform(&settings::key_file(&main, source));
    let mut claims = Claims::of(&main.declared, &platform, source, &mistakes);
    claims.join(platform);
    let claims = claims.with_authorities(main.cas.iter().map(|ca| ca.name.value.clone()));
    claims.check_uses(&main.declared, Reader::Main, &mistakes);
    let gone = gone(&main.include, source, texts, previous);
    let joined = join(texts, previous, &gone.files, &claims);
    // A hook names tenants and hosts that no file declares; a file left out may declare them.
    let is_whole = joined.warnings.is_empty() && gone.warnings.is_empty();
    if main.on_demand.ask.is_none() && is_whole && mistakes.is_empty() {
        joined.claims.check_main_reach(&main.declared, &mistakes);
    }
    let mut settings = settings::settle(&main, source, &mistakes);
    settings.declaration = declared::settle(&main.declared, source, &mistakes);
    settings.declaration.obtain = settings.certificates.obtain;
    let mut found = mistakes.into_sorted();
    if found.is_empty() {
        add(&mut settings.declaration, &joined);
        let warnings = gone.warnings.into_iter().chain(joined.warnings);
        return Ok(Assembled {
            settings,
            main: source,
            included: joined.included,
            claims: joined.claims,
            warnings: warnings.collect(),
        });
    }
    found.extend(gone.warnings);
    found.extend(joined.warnings);
    Err(found)
}

/// Files that are there no longer and go on.
#[derive(Default)]
struct Gone<'t> {
    files: Vec<&'t FileText>,
    warnings: Vec<Mistake>,
}

/// The files of patterns that matched some in the last good configuration and match none now.
fn gone<'t>(
    patterns: &[At<PathBuf>],
    main: &Source,
    texts: &Texts,
    previous: Option<&'t Texts>,
) -> Gone<'t> {
    let mut gone = Gone::default();
    for pattern in patterns {
        let resolved = main.resolve(&pattern.value);
        if !texts.fitting(&resolved).is_empty() {
            continue;
        }
        let before = previous.map(|texts| texts.fitting(&resolved));
        let mut before = before.unwrap_or_default();
        // One that another pattern names too is there.
        before.retain(|file| texts.included(file.name()).is_none());
        if before.is_empty() {
            continue;
        }
        let what = format!(
            "include: no file matches {:?} any more, and {} did: what they declare goes on",
            pattern.value.display().to_string(),
            before.len()
        );
        let finding = Finding::new(what).fix(
            "bring the files back; to remove them on purpose, take the pattern out of \"include\", \
             or leave an empty file that matches it",
        );
        gone.warnings
            .push(located(main, pattern.at.clone(), finding));
        gone.files.extend(before);
    }
    gone
}

/// Adds what the included files declare, in the order of their paths.
fn add(declaration: &mut Declaration, joined: &Joined<'_>) {
    for file in &joined.included {
        let own = &file.declaration;
        declaration.tenants.extend(own.tenants.iter().cloned());
        declaration.upstreams.extend(own.upstreams.iter().cloned());
        declaration.routes.extend(own.routes.iter().cloned());
        let chosen = own.choices.0.iter();
        let chosen = chosen.map(|(tenant, choice)| (tenant.clone(), choice.clone()));
        declaration.choices.0.extend(chosen);
        let keys = &mut declaration.own_keys;
        keys.without.extend(own.own_keys.without.iter().cloned());
        let files = own.own_keys.files.iter();
        let files = files.map(|(tenant, file)| (tenant.clone(), file.clone()));
        keys.files.extend(files);
    }
    if joined.included.len() < joined.named {
        declaration.completeness = Completeness::Partial;
    }
}

struct Joined<'t> {
    /// The files that there are, whether they take part or not.
    named: usize,
    included: Vec<Included<'t>>,
    claims: Claims<'t>,
    warnings: Vec<Mistake>,
}

/// Adds the included files to the main file's claims, those with the oldest right first.
fn join<'t>(
    texts: &'t Texts,
    previous: Option<&'t Texts>,
    gone: &[&'t FileText],
    main: &Claims<'t>,
) -> Joined<'t> {
    let old = |file: &FileText| previous.and_then(|texts| texts.included(file.name()));
    let mut order: Vec<&FileText> = texts.included.iter().chain(gone.iter().copied()).collect();
    let named = order.len();
    order.sort_by_key(|file| match (old(file), file.source()) {
        (Some(old), Some(new)) if old == new => 0,
        (Some(_), _) => 1,
        (None, _) => 2,
    });
    let (mut included, mut warnings, mut claims) = (Vec::new(), Vec::new(), main.clone());
    for file in order {
        let present = match file {
            FileText::Read(source) => read(source, &claims, main),
            FileText::Unreadable(mistake) => Err(vec![mistake.clone()]),
        };
        let taken = match present {
            Ok(taken) => taken,
            Err(mistakes) => {
                warnings.extend(mistakes);
                let old = old(file).filter(|old| Some(*old) != file.source());
                match old.and_then(|old| read(old, &claims, main).ok()) {
                    Some(taken) => taken,
                    None => continue,
                }
            }
        };
        let (file, own) = taken;
        claims.join(own);
        included.push(file);
    }
    for file in &included {
        let mistakes = Mistakes::new(file.source);
        claims.check_taken(&file.hosts, file.source, &mistakes);
        claims.check_authorities(file.chosen.iter(), &mistakes);
        warnings.extend(mistakes.into_sorted());
    }
    included.sort_by(|a, b| a.source.name().cmp(b.source.name()));
    warnings.sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
    Joined {
        named,
        included,
        claims,
        warnings,
    }
}

/// One included file on top of what others have claimed.
fn read<'t>(
    source: &'t Source,
    others: &Claims<'t>,
    main: &Claims<'t>,
) -> Result<(Included<'t>, Claims<'t>), Vec<Mistake>> {
    let mistakes = Mistakes::new(source);
    let declared = file::read_included(source, &mistakes);
    let own = Claims::of(&declared, others, source, &mistakes);
    own.check_uses(&declared, Reader::Included(main), &mistakes);
    let mut declaration = declared::settle(&declared, source, &mistakes);
    let tenants = declaration.tenants.iter().map(|tenant| tenant.id.clone());
    let tenants: Arc<BTreeSet<TenantId>> = Arc::new(tenants.collect());
    for route in &mut declaration.routes {
        route.tenants = Some(Arc::clone(&tenants));
    }
    let file = Included {
        source,
        declaration,
        hosts: declared
            .routes
            .into_iter()
            .filter_map(|route| route.host)
            .collect(),
        chosen: declared
            .tenants
            .into_iter()
            .flat_map(|tenant| tenant.ca)
            .collect(),
    };
    match mistakes.into_sorted() {
        none if none.is_empty() => Ok((file, own)),
        some => Err(some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::mistake::Report;

    fn texts(main: &str, included: &[(&str, &str)]) -> Texts {
        let file = |name: &str, text: &str| FileText::Read(Source::new(name, text));
        let ca = "[[ca]]\nname = \"internal\"\nkind = \"private\"\n";
        Texts {
            main: file("proxy.toml", &format!("{ca}{main}")),
            included: included
                .iter()
                .map(|(name, text)| file(name, text))
                .collect(),
        }
    }

    fn tenant(name: &str, domain: &str) -> String {
        format!("[[tenant]]\nname = \"{name}\"\ndomains = [\"{domain}\"]\n")
    }

    fn served(assembled: &Assembled<'_>) -> Vec<String> {
        let files = assembled.included.iter();
        let tenants = files.flat_map(|file| &file.declaration.tenants);
        tenants
            .map(|tenant| tenant.domains[0].to_string())
            .collect()
    }

    #[test]
    fn one_bad_tenant_of_a_hundred_leaves_ninety_nine() {
        let files: Vec<(String, String)> = (0..100)
            .map(|n| {
                let domain = if n == 42 { "not a name" } else { "x" };
                (
                    format!("d/{n:03}.toml"),
                    tenant(&format!("t{n}"), &format!("{domain}{n}.test")),
                )
            })
            .collect();
        let files: Vec<(&str, &str)> = files.iter().map(|(a, b)| (&**a, &**b)).collect();
        let texts = texts("", &files);
        let assembled = assemble(&texts, None).unwrap();
        assert_eq!(assembled.included.len(), 99);
        assert_eq!(assembled.warnings.len(), 1);
        assert_eq!(assembled.warnings[0].file, "d/042.toml");
    }

    #[test]
    fn a_broken_included_file_keeps_its_last_good_text() {
        let old = texts(
            "",
            &[("a", &tenant("a", "a.test")), ("b", &tenant("b", "b.test"))],
        );
        let new = texts("", &[("a", "[[tenant"), ("b", &tenant("b", "b2.test"))]);
        let assembled = assemble(&new, Some(&old)).unwrap();
        assert_eq!(served(&assembled), ["a.test", "b2.test"]);
        assert_eq!(
            assembled.included[0].source,
            old.included[0].source().unwrap()
        );
        assert_eq!(assembled.warnings[0].file, "a");
    }

    #[test]
    fn a_newcomer_cannot_take_a_name_that_another_file_holds() {
        let victim = tenant("victim", "shop.test");
        let old = texts("", &[("z", &victim)]);
        let new = texts("", &[("a", &tenant("thief", "shop.test")), ("z", &victim)]);
        let assembled = assemble(&new, Some(&old)).unwrap();
        assert_eq!(assembled.included[0].source.name(), "z");
        assert_eq!(assembled.warnings[0].file, "a");
        assert!(
            assembled.warnings[0]
                .to_string()
                .contains("see z:3:12: the first one")
        );
    }

    #[test]
    fn an_included_file_reaches_only_what_it_declares() {
        let main = "[[upstream]]\nname = \"core\"\naddresses = [\"127.0.0.1:3000\"]\n";
        for (text, expected) in [
            (
                "[[route]]\nupstream = \"core\"",
                "a [[route]] for every domain in an included file",
            ),
            (
                "[[route]]\ntenant = \"other\"\nupstream = \"core\"",
                "a [[route]] for tenant \"other\" in an included file",
            ),
            (
                "[[route]]\nhost = \"other.test\"\nupstream = \"core\"",
                "a [[route]] for other.test in an included file",
            ),
            (
                "[[tenant]]\nname = \"a\"\n[[route]]\ntenant = \"a\"\nupstream = \"cor\"",
                "unknown upstream \"cor\"",
            ),
            (
                "[store]\ndata = \"/tmp\"",
                "\"store\" belongs into the main file",
            ),
        ] {
            let texts = texts(
                main,
                &[("a.toml", text), ("b.toml", &tenant("b", "b.test"))],
            );
            let assembled = assemble(&texts, None).unwrap();
            assert_eq!(served(&assembled), ["b.test"], "{text}");
            let warning = &assembled.warnings[0].what;
            assert!(warning.starts_with(expected), "{warning}");
        }
    }

    #[test]
    fn a_route_below_a_files_own_wildcard_takes_no_name_that_another_file_declares() {
        let main = "[[upstream]]\nname = \"core\"\naddresses = [\"127.0.0.1:3000\"]\n";
        let wide = format!(
            "{}[[route]]\nhost = \"a.x.test\"\nupstream = \"core\"\n\
             [[route]]\nhost = \"b.x.test\"\nupstream = \"core\"\n",
            tenant("wide", "*.x.test")
        );
        let own = tenant("own", "a.x.test");
        for (first, second) in [("a.toml", "b.toml"), ("b.toml", "a.toml")] {
            let texts = texts(main, &[(first, &wide), (second, &own)]);
            let assembled = assemble(&texts, None).unwrap();
            assert_eq!(assembled.included.len(), 2, "each file stands");
            let [warning] = &*assembled.warnings else {
                panic!("{:?}", assembled.warnings);
            };
            assert_eq!(warning.file, first);
            assert!(warning.what.contains("a.x.test"), "{warning}");
            let allowed: BTreeSet<TenantId> = [TenantId::parse("wide").unwrap()].into();
            for route in &assembled.settings.declaration.routes {
                assert_eq!(route.tenants.as_deref(), Some(&allowed));
            }
        }
    }

    #[test]
    fn a_route_of_the_main_file_needs_its_tenant_only_while_every_file_is_whole() {
        let main = "[[upstream]]\nname = \"core\"\naddresses = [\"127.0.0.1:3000\"]\n\
                    [[route]]\ntenant = \"acme\"\nupstream = \"core\"\n";
        let whole = texts(main, &[("b", &tenant("acme2", "b.test"))]);
        let refused = assemble(&whole, None).unwrap_err();
        assert_eq!(refused[0].fix.as_deref(), Some("did you mean \"acme2\"?"));
        let broken = texts(main, &[("a", "oops"), ("b", &tenant("acme2", "b.test"))]);
        assert!(assemble(&broken, None).is_ok());
    }

    #[test]
    fn a_tenants_key_file_is_nobody_elses_under_any_name() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        std::os::unix::fs::symlink(folder.path(), folder.path().join("link")).unwrap();
        let keys = format!("[keys]\nfile = {:?}\n", at("kek"));
        let own = |tenant: &str, file: &str| {
            format!("[[tenant]]\nname = {tenant:?}\nkey_file = {:?}\n", at(file))
        };
        for (file, whose) in [
            ("kek", "[keys] file"),
            ("./kek", "[keys] file"),
            ("a/../kek", "[keys] file"),
            ("link/kek", "[keys] file"),
            ("b.key", "tenant b"),
            ("link/./b.key", "tenant b"),
        ] {
            let b = own("b", "b.key");
            let alone = texts(&format!("{keys}{b}{}", own("a", file)), &[]);
            let refused = assemble(&alone, None).unwrap_err();
            assert!(
                refused[0].what.contains(whose),
                "{file}: {}",
                refused[0].what
            );
            let a = own("a", file);
            let included = texts(&keys, &[("b", &b), ("c", &a)]);
            let assembled = assemble(&included, None).unwrap();
            let warning = &assembled.warnings[0];
            assert!(
                warning.file == "c" && warning.what.contains(whose),
                "{file}: {}",
                warning.what
            );
        }
        let apart = texts(
            &format!("{keys}{}{}", own("a", "a.key"), own("b", "b.key")),
            &[],
        );
        assert_eq!(assemble(&apart, None).unwrap().warnings.len(), 0);
    }

    #[test]
    fn everything_that_a_ca_lacks_is_told_at_once() {
        let texts = texts(
            "[[ca]]\nkind = \"acme\"\naccount_key = { env = \"NOT_SET\" }\n",
            &[],
        );
        let told: Vec<String> = assemble(&texts, None)
            .unwrap_err()
            .iter()
            .map(|mistake| mistake.what.clone())
            .collect();
        for expected in [
            "[[ca]] has no \"name\"",
            "[[ca]] has no \"directory\"",
            "the CA's terms of service are not agreed to",
            "account_key: the environment variable NOT_SET is not set",
        ] {
            assert!(
                told.iter().any(|what| what == expected),
                "{expected}: {told:?}"
            );
        }
    }

    #[test]
    fn a_wrong_value_is_told_as_what_it_is_and_with_an_example_of_its_kind() {
        for (text, found, example) in [
            (
                "[certificates]\nchallenges = [\"dns-01\"]\n",
                "challenges in [certificates]: found \"dns-01\"",
                "http-01",
            ),
            (
                "[[upstream]]\nname = \"core\"\naddresses = []\n",
                "addresses in [[upstream]]: found an empty list",
                "a list of",
            ),
            (
                "[on_demand]\nask = \"ftp://127.0.0.1/\"\n",
                "ask in [on_demand]: found \"ftp://127.0.0.1/\"",
                "http://127.0.0.1:3000/allowed",
            ),
        ] {
            let refused = assemble(&texts(text, &[]), None).unwrap_err();
            let told = Report(&refused).to_string();
            assert!(told.contains(found) && told.contains(example), "{told}");
        }
    }

    #[test]
    fn a_tenant_chooses_among_the_authorities_of_the_main_file() {
        let acme = "[[tenant]]\nname = \"acme\"\nca = [\"internal\"]\nprofile = \"short\"\n";
        let globex = "[[tenant]]\nname = \"globex\"\nca = [\"internl\"]\n";
        let initech = "[[tenant]]\nname = \"initech\"\nca = [\"internal\"]\n";
        let texts = texts(acme, &[("a", globex), ("b", initech)]);
        let assembled = assemble(&texts, None).unwrap();
        let warning = &assembled.warnings[0];
        assert_eq!(
            warning.what,
            "ca in [[tenant]]: there is no [[ca]] named \"internl\""
        );
        assert_eq!(warning.fix.as_deref(), Some("did you mean \"internal\"?"));
        let choices = &assembled.settings.declaration.choices.0;
        assert_eq!(choices.len(), 3);
        let choice = &choices[&TenantId::parse("acme").unwrap()];
        assert_eq!(choice.authorities[0].as_str(), "internal");
        assert_eq!(choice.profile.as_deref(), Some("short"));
    }

    #[test]
    fn an_included_file_stands_with_its_choice_when_the_authority_is_removed() {
        let own = "[[tenant]]\nname = \"own\"\ndomains = [\"own.test\"]\nca = [\"corp\"]\n\
                   [[upstream]]\nname = \"back\"\naddresses = [\"127.0.0.1:3000\"]\n\
                   [[route]]\ntenant = \"own\"\nupstream = \"back\"\n";
        let corp = "[[ca]]\nname = \"corp\"\nkind = \"private\"\n";
        let (old, new) = (texts(corp, &[("a", own)]), texts("", &[("a", own)]));
        assert_eq!(assemble(&old, None).unwrap().warnings, []);
        for previous in [Some(&old), None] {
            let assembled = assemble(&new, previous).unwrap();
            assert_eq!(served(&assembled), ["own.test"]);
            let told = &assembled.warnings[0];
            assert_eq!((&*told.file, assembled.warnings.len()), ("a", 1));
            let what = "ca in [[tenant]]: there is no [[ca]] named \"corp\"";
            assert_eq!(told.what, what);
            let declaration = &assembled.settings.declaration;
            let choice = &declaration.choices.0[&TenantId::parse("own").unwrap()];
            assert_eq!(choice.authorities[0].as_str(), "corp");
            let counts = (declaration.routes.len(), declaration.upstreams.len());
            assert_eq!(counts, (1, 1));
            assert_eq!(declaration.completeness, Completeness::Whole);
        }
        let main = texts("[[tenant]]\nname = \"own\"\nca = [\"corp\"]\n", &[]);
        assert!(assemble(&main, Some(&old)).is_err());
    }
}

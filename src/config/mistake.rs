//! A mistake in a configuration file: where it is, what was found, what was expected, and how to mend it.

use std::cell::RefCell;
use std::fmt;
use std::ops::Range;

use crate::config::source::{Excerpt, Source};

/// Mistakes of one file that are kept; further ones are counted.
const MOST_KEPT: usize = 500;
/// Mistakes that [`Report`] prints; further ones are counted.
const MOST_PRINTED: usize = 100;

/// One mistake, self-contained: it can be printed after the file's text is gone. Prints like a compiler's
/// message, without a final line break.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The file as the operator named it.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What was found.
    pub what: String,
    /// What was expected there, where that helps.
    pub expected: Option<String>,
    /// What to do.
    pub fix: Option<String>,
    /// The other place that takes part, as `file:line:column: reason`.
    pub also: Option<String>,
    excerpt: Option<Excerpt>,
    absence: bool,
}

impl Mistake {
    /// It in one line, for a log: `proxy.toml:12:3: unknown key "adress"; did you mean "addresses"?`.
    #[must_use]
    pub fn headline(&self) -> String {
        let Self {
            file,
            line,
            column,
            what,
            fix,
            ..
        } = self;
        let place = format!("{}:{line}:{column}: {what}", Printable(file));
        match fix {
            Some(fix) => format!("{place}; {fix}"),
            None => place,
        }
    }

    /// Whether it is about something that is not there.
    pub(super) const fn is_absence(&self) -> bool {
        self.absence
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            file,
            line,
            column,
            what,
            ..
        } = self;
        write!(f, "{}:{line}:{column}: {what}", Printable(file))?;
        let gutter = line.to_string().len();
        if let Some(Excerpt { text, lead, width }) = &self.excerpt {
            let carets = "^".repeat(*width);
            write!(f, "\n{:gutter$} |", "")?;
            write!(f, "\n{line} | {text}")?;
            write!(f, "\n{:gutter$} | {:lead$}{carets}", "", "")?;
        }
        if let Some(expected) = &self.expected {
            write!(f, "\n{:gutter$} = expected {expected}", "")?;
        }
        if let Some(fix) = &self.fix {
            write!(f, "\n{:gutter$} = fix: {fix}", "")?;
        }
        if let Some(also) = &self.also {
            write!(f, "\n{:gutter$} = see {also}", "")?;
        }
        Ok(())
    }
}

/// Text with control characters replaced, for a file's name or content may hold any.
struct Printable<'a>(&'a str);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| {
            let shown = if c.is_control() { '\u{fffd}' } else { c };
            fmt::Write::write_char(f, shown)
        })
    }
}

/// What a mistake says beside its place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Finding {
    what: String,
    expected: Option<String>,
    fix: Option<String>,
    also: Option<String>,
    shown: Shown,
    absence: bool,
}

/// How much of its line a mistake shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Shown {
    /// All of it.
    #[default]
    Line,
    /// The line to the end of the mistake: what follows may be a secret in the wrong place.
    ToItsEnd,
    /// Nothing: the mistake itself may be one.
    Nothing,
}

impl Finding {
    pub(super) fn new(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            ..Self::default()
        }
    }

    /// That something is not there.
    pub(super) fn absent(what: impl Into<String>) -> Self {
        Self {
            absence: true,
            ..Self::new(what)
        }
    }

    pub(super) fn expected(mut self, expected: impl Into<String>) -> Self {
        self.expected = Some(expected.into());
        self
    }

    pub(super) fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }

    pub(super) fn maybe_fix(mut self, fix: Option<String>) -> Self {
        self.fix = fix.or(self.fix);
        self
    }

    pub(super) fn see(mut self, also: impl Into<String>) -> Self {
        self.also = Some(also.into());
        self
    }

    /// Keeps what follows the mistake in its line out: it may be a secret in the wrong place.
    pub(super) const fn hide_rest(mut self) -> Self {
        self.shown = Shown::ToItsEnd;
        self
    }

    /// Keeps the source line out: it may hold a secret in the wrong place.
    pub(super) const fn hide_source(mut self) -> Self {
        self.shown = Shown::Nothing;
        self
    }
}

/// Collects the mistakes of one file while it is read; bounded.
#[derive(Debug)]
pub(super) struct Mistakes<'s> {
    source: &'s Source,
    kept: RefCell<Vec<Mistake>>,
}

impl<'s> Mistakes<'s> {
    pub(super) const fn new(source: &'s Source) -> Self {
        Self {
            source,
            kept: RefCell::new(Vec::new()),
        }
    }

    /// Records `finding` at a range of bytes of the source.
    pub(super) fn add(&self, at: Range<usize>, finding: Finding) {
        let mut kept = self.kept.borrow_mut();
        if kept.len() < MOST_KEPT {
            kept.push(located(self.source, at, finding));
        }
    }

    /// Adds mistakes that were recorded elsewhere.
    pub(super) fn take_over(&self, others: impl Iterator<Item = Mistake>) {
        let mut kept = self.kept.borrow_mut();
        let room = MOST_KEPT.saturating_sub(kept.len());
        kept.extend(others.take(room));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.kept.borrow().is_empty()
    }

    /// What was recorded, in the order of the file.
    pub(super) fn into_sorted(self) -> Vec<Mistake> {
        let mut kept = self.kept.into_inner();
        kept.sort_by_key(|mistake| (mistake.line, mistake.column));
        kept
    }
}

/// A mistake at a range of bytes of `source`.
pub(super) fn located(source: &Source, at: Range<usize>, finding: Finding) -> Mistake {
    let position = source.position(at.start);
    Mistake {
        file: source.name().to_owned(),
        line: position.line,
        column: position.column,
        what: finding.what,
        expected: finding.expected,
        fix: finding.fix,
        also: finding.also,
        excerpt: match finding.shown {
            Shown::Line => Some(source.excerpt(at)),
            Shown::ToItsEnd => Some(source.excerpt(at).cut()),
            Shown::Nothing => None,
        },
        absence: finding.absence,
    }
}

/// A mistake that concerns a file as a whole: it cannot be read, or is too large.
pub(super) fn whole_file(file: &str, finding: Finding) -> Mistake {
    Mistake {
        file: file.to_owned(),
        line: 1,
        column: 1,
        what: finding.what,
        expected: finding.expected,
        fix: finding.fix,
        also: finding.also,
        excerpt: None,
        absence: finding.absence,
    }
}

/// Several mistakes as text: each like a compiler's message, at most 100, then how many there are.
#[derive(Clone, Copy, Debug)]
pub struct Report<'a>(pub &'a [Mistake]);

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for mistake in self.0.iter().take(MOST_PRINTED) {
            writeln!(f, "{mistake}\n")?;
        }
        match self.0.len() {
            1 => write!(f, "1 mistake"),
            count if count > MOST_PRINTED => {
                write!(f, "{count} or more mistakes, {MOST_PRINTED} of them shown")
            }
            count => write!(f, "{count} mistakes"),
        }
    }
}

/// `"a", "b" or "c"`, cut where there are many.
pub(super) fn quoted_list<'k>(words: impl IntoIterator<Item = &'k str>) -> String {
    const MOST: usize = 30;
    let words: Vec<String> = words.into_iter().map(|word| format!("{word:?}")).collect();
    match words.as_slice() {
        [] => "nothing".to_owned(),
        [only] => only.clone(),
        [rest @ .., last] if words.len() <= MOST => format!("{} or {last}", rest.join(", ")),
        all => {
            let shown: Vec<&str> = all.iter().take(MOST).map(String::as_str).collect();
            format!("{} and {} more", shown.join(", "), all.len() - MOST)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_reads_like_a_sentence() {
        assert_eq!(quoted_list(["a"]), r#""a""#);
        assert_eq!(quoted_list(["a", "b", "c"]), r#""a", "b" or "c""#);
        let many: Vec<String> = (0..40).map(|n| n.to_string()).collect();
        assert!(quoted_list(many.iter().map(String::as_str)).ends_with("and 10 more"));
    }

    #[test]
    fn a_mistake_prints_like_a_compilers_message() {
        let source = Source::new("proxy.toml", "a = 1\n  \u{1b}[31mé = 22 # x\n");
        let finding = Finding::new("found 22")
            .expected("23")
            .fix("write 23")
            .see("other.toml:1:1: the first one");
        let at = source.text().find("22").unwrap();
        let mistake = located(&source, at..at + 2, finding);
        let expected = "\
proxy.toml:2:12: found 22
  |
2 |   \u{fffd}[31mé = 22 # x
  |            ^^
  = expected 23
  = fix: write 23
  = see other.toml:1:1: the first one";
        assert_eq!(mistake.to_string(), expected);
    }
}

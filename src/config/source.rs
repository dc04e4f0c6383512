//! The text of one configuration file, with the way from a byte to its line and column.

use std::ops::Range;
use std::path::{Path, PathBuf};

/// Characters of a line that are shown, and how many of them may lie before the caret.
const MOST_SHOWN: usize = 120;
const MOST_BEFORE: usize = 80;

/// A configuration file's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Source {
    name: String,
    text: String,
    line_starts: Vec<usize>,
}

/// Where something stands in a text: both from 1, the column in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) line: usize,
    pub(super) column: usize,
}

/// The part of a line that shows a mistake, safe to print.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Excerpt {
    /// The line, or the part of it around the mistake; control characters replaced.
    pub(super) text: String,
    /// Characters before the mistake.
    pub(super) lead: usize,
    /// Characters of the mistake, at least one.
    pub(super) width: usize,
}

impl Excerpt {
    /// Without what follows the mistake.
    pub(super) fn cut(mut self) -> Self {
        let end = self.lead + self.width;
        if self.text.chars().count() > end {
            self.text = self.text.chars().take(end).chain(" …".chars()).collect();
        }
        self
    }
}

impl Source {
    /// `name` is the path as the operator gave it.
    pub(super) fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        let text = text.into();
        let breaks = text.match_indices('\n').map(|(at, _)| at + 1);
        let line_starts = std::iter::once(0).chain(breaks).collect();
        Self {
            name: name.into(),
            text,
            line_starts,
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// What a relative path in this file is relative to.
    pub(super) fn folder(&self) -> &Path {
        match Path::new(&self.name).parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        }
    }

    /// A path written in this file, as the program opens it.
    pub(super) fn resolve(&self, path: &Path) -> PathBuf {
        self.folder().join(path.strip_prefix("./").unwrap_or(path))
    }

    pub(super) fn position(&self, at: usize) -> Position {
        let (line, start) = self.line_of(at);
        let before = self.text.get(start..at).unwrap_or_default();
        Position {
            line: line + 1,
            column: before.chars().count() + 1,
        }
    }

    /// `file:line:column`.
    pub(super) fn location(&self, at: usize) -> String {
        let Position { line, column } = self.position(at);
        format!("{}:{line}:{column}", self.name)
    }

    pub(super) fn excerpt(&self, at: Range<usize>) -> Excerpt {
        let (_, start) = self.line_of(at.start);
        let rest = self.text.get(start..).unwrap_or_default();
        let line = rest.lines().next().unwrap_or_default();
        let (marked, end) = (at.start - start, at.end.max(at.start) - start);
        let lead = line.get(..marked).unwrap_or(line).chars().count();
        let width = line.get(marked..end.min(line.len())).unwrap_or_default();
        let skipped = lead.saturating_sub(MOST_BEFORE);
        let shown = line.chars().skip(skipped).take(MOST_SHOWN);
        let lead = lead - skipped;
        Excerpt {
            text: shown.map(printable).collect(),
            lead,
            width: width.chars().count().clamp(1, MOST_SHOWN - lead),
        }
    }

    /// The text in pieces, from the header of a table to the next one. Headers are told by how a line begins, for
    /// the text need not be TOML.
    pub(super) fn blocks(&self) -> Vec<Range<usize>> {
        let mut starts = vec![0];
        let is_header = |start: &usize| {
            let line = self.text.get(*start..).unwrap_or_default();
            let line = line.trim_start_matches([' ', '\t']);
            let name = line.strip_prefix("[[").or_else(|| line.strip_prefix('['));
            name.is_some_and(|name| name.starts_with(|c: char| c.is_ascii_alphabetic()))
        };
        starts.extend(self.line_starts.iter().skip(1).copied().filter(is_header));
        let ends = starts.iter().skip(1).copied().chain([self.text.len()]);
        let blocks = starts.iter().copied().zip(ends);
        blocks.map(|(start, end)| start..end).collect()
    }

    /// The line that a byte lies in, from 0, and where that line starts.
    fn line_of(&self, at: usize) -> (usize, usize) {
        let line = self.line_starts.partition_point(|start| *start <= at);
        let line = line.saturating_sub(1);
        (line, self.line_starts.get(line).copied().unwrap_or(0))
    }
}

/// A tab counts as one column: it is shown as one blank. Other control characters could steer a terminal.
fn printable(c: char) -> char {
    match c {
        '\t' => ' ',
        c if c.is_control() => '\u{fffd}',
        c => c,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_characters_from_one() {
        let source = Source::new("f", "é = 1\r\nb = 2");
        let at = |text: &str| source.position(source.text().find(text).unwrap());
        assert_eq!(at("é"), Position { line: 1, column: 1 });
        assert_eq!(at("1"), Position { line: 1, column: 5 });
        assert_eq!(at("2"), Position { line: 2, column: 5 });
        assert_eq!(source.position(9999).line, 2);
    }

    #[test]
    fn a_long_line_is_cut_around_the_mistake() {
        let text = format!("{}X{}", "a".repeat(5000), "b".repeat(5000));
        let excerpt = Source::new("f", text).excerpt(5000..5001);
        assert_eq!(excerpt.text.chars().count(), MOST_SHOWN);
        assert_eq!(excerpt.text.chars().nth(excerpt.lead), Some('X'));
        assert_eq!(excerpt.width, 1);
    }

    #[test]
    fn a_block_goes_from_header_to_header() {
        let source = Source::new("f", "a = [\n[1]]\n[x]\nb = 2\n [[y]]\nc = 3");
        let blocks = source.blocks();
        let texts: Vec<&str> = blocks
            .iter()
            .map(|block| source.text().get(block.clone()).unwrap())
            .collect();
        assert_eq!(texts, ["a = [\n[1]]\n", "[x]\nb = 2\n", " [[y]]\nc = 3"]);
    }

    #[test]
    fn paths_are_relative_to_the_file_that_names_them() {
        let at = |name| Source::new(name, "").resolve(Path::new("./data"));
        assert_eq!(at("proxy.toml"), Path::new("./data"));
        assert_eq!(at("/etc/v/proxy.toml"), Path::new("/etc/v/data"));
        let absolute = Source::new("etc/proxy.toml", "").resolve(Path::new("/var/lib/v"));
        assert_eq!(absolute, Path::new("/var/lib/v"));
    }
}

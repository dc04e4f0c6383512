//! Walks the tables of a configuration file, takes typed values out by key, and records every mistake on the
//! way instead of stopping at the first.
//!
//! A [`Table`] learns its known keys from what it is asked for, so that [`Table::finish`] can name the
//! nearest known key to a misspelt one and no list of keys can go stale.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::base::nearest::nearest;
use crate::config::mistake::{Finding, Mistakes, quoted_list};

/// A value and where it stands in its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) at: Range<usize>,
}

/// Why a value is not what a key takes.
#[derive(Clone, Debug)]
pub(super) struct Wrong {
    found: Option<String>,
    expected: String,
    fix: Option<String>,
    hidden: bool,
    told: bool,
}

impl Wrong {
    /// The value as it stands is quoted as what was found.
    pub(super) fn expected(expected: impl Into<String>) -> Self {
        Self {
            found: None,
            expected: expected.into(),
            fix: None,
            hidden: false,
            told: false,
        }
    }

    /// What is wrong has been recorded already, inside the value.
    pub(super) fn told() -> Self {
        Self {
            told: true,
            ..Self::expected("")
        }
    }

    pub(super) fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }

    /// Quotes `item` as what was found, not the whole that it is in.
    pub(super) fn found(mut self, item: &Value<'_>) -> Self {
        self.found = Some(item.describe());
        self
    }

    /// Says `found` instead of quoting the value, and keeps the source line out.
    pub(super) fn hidden(mut self, found: impl Into<String>) -> Self {
        self.found = Some(found.into());
        self.hidden = true;
        self
    }
}

/// One value of a table or a list.
#[derive(Clone, Copy)]
pub(super) struct Value<'a> {
    inner: &'a Spanned<DeValue<'a>>,
    mistakes: &'a Mistakes<'a>,
}

impl<'a> Value<'a> {
    pub(super) fn text(&self) -> Option<&'a str> {
        self.inner.get_ref().as_str()
    }

    pub(super) fn flag(&self) -> Option<bool> {
        self.inner.get_ref().as_bool()
    }

    /// The integer, if it is one that fits.
    pub(super) fn integer(&self) -> Option<i64> {
        let integer = self.inner.get_ref().as_integer()?;
        i64::from_str_radix(integer.as_str(), integer.radix()).ok()
    }

    /// The number with a fraction, if it is one.
    pub(super) fn number(&self) -> Option<f64> {
        self.inner.get_ref().as_float()?.as_str().parse().ok()
    }

    pub(super) fn list(&self) -> Option<Vec<Self>> {
        let items = self.inner.get_ref().as_array()?.iter();
        let mistakes = self.mistakes;
        Some(items.map(|inner| Value { inner, mistakes }).collect())
    }

    /// The value as an inline table, to be read and finished by the caller.
    pub(super) fn table(&self, title: &'static str) -> Option<Table<'a>> {
        let entries = self.inner.get_ref().as_table()?;
        Some(Table::new(entries, self.inner.span(), title, self.mistakes))
    }

    /// What it is, for a message: the value itself where it is short.
    fn describe(&self) -> String {
        match self.inner.get_ref() {
            DeValue::String(text) if text.len() <= 80 => format!("{text:?}"),
            DeValue::String(text) => format!("a string of {} bytes", text.len()),
            DeValue::Integer(number) => format!("the integer {}", number.as_str()),
            DeValue::Float(number) => format!("the number {}", number.as_str()),
            DeValue::Boolean(flag) => flag.to_string(),
            DeValue::Datetime(at) => format!("the date {at}"),
            DeValue::Array(items) if items.is_empty() => "an empty list".to_owned(),
            DeValue::Array(_) => "a list".to_owned(),
            DeValue::Table(_) => "a table".to_owned(),
        }
    }
}

/// One table of the file, read key by key.
pub(super) struct Table<'a> {
    entries: &'a DeTable<'a>,
    at: Range<usize>,
    title: &'static str,
    asked: Vec<&'static str>,
    refused: Vec<&'static str>,
    mistakes: &'a Mistakes<'a>,
}

impl<'a> Table<'a> {
    /// `title` is how messages name the table: `[listen]`, `[[upstream]]`.
    pub(super) const fn new(
        entries: &'a DeTable<'a>,
        at: Range<usize>,
        title: &'static str,
        mistakes: &'a Mistakes<'a>,
    ) -> Self {
        Self {
            entries,
            at,
            title,
            asked: Vec::new(),
            refused: Vec::new(),
            mistakes,
        }
    }

    /// Where the table's header or its opening brace stands.
    pub(super) fn place(&self) -> Range<usize> {
        self.at.clone()
    }

    /// Whether the file holds the key.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    /// The value of a key that may be absent; absent, too, where it is a mistake, which is recorded.
    pub(super) fn optional<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&Value<'a>) -> Result<T, Wrong>,
    ) -> Option<At<T>> {
        let value = self.ask(key)?;
        self.checked(key, value, read)
    }

    /// The value of a key that must be there.
    pub(super) fn required<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        read: impl FnOnce(&Value<'a>) -> Result<T, Wrong>,
    ) -> Option<At<T>> {
        if !self.has(key) {
            self.asked.push(key);
            let finding = Finding::absent(format!("{} has no {key:?}", self.title));
            let finding = finding.expected(expected);
            self.mistakes.add(self.at.clone(), finding);
            return None;
        }
        self.optional(key, read)
    }

    /// The items of a list; wrong items are recorded and left out. Absent where the key is.
    pub(super) fn list<T>(
        &mut self,
        key: &'static str,
        most: usize,
        read: impl Fn(&Value<'a>) -> Result<T, Wrong>,
    ) -> Option<Vec<At<T>>> {
        let value = self.ask(key)?;
        let items = self.checked(key, value, |value| match value.list() {
            Some(items) if items.len() <= most => Ok(items),
            Some(_) => Err(Wrong::expected(format!("at most {most} items"))),
            None => Err(not_a_list(value)),
        })?;
        let items = items.value.into_iter();
        Some(
            items
                .filter_map(|item| self.checked(key, item, &read))
                .collect(),
        )
    }

    /// The items of a list that must hold at least one.
    pub(super) fn required_list<T>(
        &mut self,
        key: &'static str,
        most: usize,
        expected: &str,
        read: impl Fn(&Value<'a>) -> Result<T, Wrong>,
    ) -> Vec<At<T>> {
        let expected = format!("a list of {expected}");
        let listed = self.required(key, &expected, |value| match value.list() {
            Some(items) if items.is_empty() => Err(Wrong::expected(expected.as_str())),
            _ => Ok(()),
        });
        match listed {
            Some(_) => self.list(key, most, read).unwrap_or_default(),
            None => Vec::new(),
        }
    }

    /// The table of a section, or an inline one; absent where the key is.
    pub(super) fn table(&mut self, key: &'static str, title: &'static str) -> Option<Self> {
        let value = self.ask(key)?;
        let table = self.checked(key, value, |value| {
            value
                .table(title)
                .ok_or_else(|| match title.starts_with('[') {
                    true => Wrong::expected(format!("one table {title}"))
                        .fix(format!("write its header as {title}, once")),
                    false => Wrong::expected("a table")
                        .fix(format!("write {key} = {{ … }}, or leave it out")),
                })
        })?;
        Some(table.value)
    }

    /// The tables of a repeated section; none where the key is absent.
    pub(super) fn tables(&mut self, key: &'static str, title: &'static str) -> Vec<Self> {
        let Some(value) = self.ask(key) else {
            return Vec::new();
        };
        let repeated = || {
            let wrong = Wrong::expected(format!("any number of tables {title}"));
            wrong.fix(format!("write the header as {title}"))
        };
        let items = self.checked(key, value, |value| value.list().ok_or_else(repeated));
        let items = items.into_iter().flat_map(|items| items.value);
        let read = |item| self.checked(key, item, |value| value.table(title).ok_or_else(repeated));
        items.filter_map(read).map(|table| table.value).collect()
    }

    /// Every entry of a table whose keys are free, in the order of the file.
    pub(super) fn entries(&self) -> Vec<(At<&'a str>, Value<'a>)> {
        let (entries, mistakes) = (self.entries, self.mistakes);
        let mut all: Vec<_> = entries
            .iter()
            .map(|(key, inner)| {
                let (at, value) = (key.span(), &**key.get_ref());
                (At { value, at }, Value { inner, mistakes })
            })
            .collect();
        all.sort_by_key(|(key, _)| key.at.start);
        all
    }

    /// Records a mistake about a value that was read before.
    pub(super) fn mistake(&self, at: Range<usize>, finding: Finding) {
        self.mistakes.add(at, finding);
    }

    /// Reports that a key has no place in this table for a reason other than being unknown.
    pub(super) fn forbid(&mut self, key: &'static str, reason: &str) {
        self.refused.push(key);
        if let Some((key, _)) = self.entries.get_key_value(key) {
            let finding = Finding::new(format!("{:?} {reason}", key.get_ref()));
            let finding = finding.fix("remove it").hide_rest();
            self.mistakes.add(key.span(), finding);
        }
    }

    /// Reads a value of a table whose keys are free.
    pub(super) fn checked<T>(
        &self,
        key: &str,
        value: Value<'a>,
        read: impl FnOnce(&Value<'a>) -> Result<T, Wrong>,
    ) -> Option<At<T>> {
        let at = value.inner.span();
        match read(&value) {
            Ok(value) => Some(At { value, at }),
            Err(wrong) if wrong.told => None,
            Err(wrong) => {
                let found = wrong.found.unwrap_or_else(|| value.describe());
                let what = match self.title {
                    "" => format!("{key}: found {found}"),
                    title => format!("{key} in {title}: found {found}"),
                };
                let finding = Finding::new(what).expected(wrong.expected);
                let finding = finding.maybe_fix(wrong.fix);
                let finding = match wrong.hidden {
                    true => finding.hide_source(),
                    false => finding,
                };
                self.mistakes.add(at, finding);
                None
            }
        }
    }

    fn ask(&mut self, key: &'static str) -> Option<Value<'a>> {
        self.asked.push(key);
        let inner = self.entries.get(key)?;
        let mistakes = self.mistakes;
        Some(Value { inner, mistakes })
    }

    /// Records the keys that nobody asked for.
    pub(super) fn finish(self) {
        #[cfg(test)]
        known::note(self.title, &self.asked);
        for (key, _) in self.entries.iter() {
            let name: &str = key.get_ref();
            if self.asked.contains(&name) || self.refused.contains(&name) {
                continue;
            }
            let shown: String = name.chars().take(80).collect();
            let what = match self.title {
                "" => format!("unknown section or key {shown:?}"),
                title => format!("unknown key {shown:?} in {title}"),
            };
            let mut asked = self.asked.clone();
            asked.sort_unstable();
            asked.dedup();
            let finding = Finding::new(what);
            let finding = match nearest(name, asked.iter().copied()) {
                Some(near) => finding
                    .expected(format!("one of {}", quoted_list(asked)))
                    .fix(format!("did you mean {near:?}?")),
                None => finding
                    .expected(format!("one of {}", quoted_list(asked)))
                    .fix("remove it"),
            };
            self.mistakes.add(key.span(), finding.hide_rest());
        }
    }
}

fn not_a_list(value: &Value<'_>) -> Wrong {
    let wrong = Wrong::expected("a list, as in [\"…\"]");
    match value.text() {
        Some(text) if text.len() <= 80 => wrong.fix(format!("write [{text:?}]")),
        _ => wrong,
    }
}

/// Which keys were asked for while reading, so that a test can hold the documented file to them.
#[cfg(test)]
pub(super) mod known {
    use std::cell::RefCell;
    use std::collections::BTreeSet;

    thread_local! {
        static ASKED: RefCell<BTreeSet<(&'static str, &'static str)>> = const { RefCell::new(BTreeSet::new()) };
    }

    pub(super) fn note(title: &'static str, asked: &[&'static str]) {
        ASKED.with_borrow_mut(|all| all.extend(asked.iter().map(|key| (title, *key))));
    }

    /// What was asked for on this thread since the last call.
    pub(crate) fn take() -> BTreeSet<(&'static str, &'static str)> {
        ASKED.take()
    }
}

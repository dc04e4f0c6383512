//! `vestibule check`: every mistake of a configuration, or what it declares.

use std::path::Path;

use crate::config::assemble::assemble;
use crate::config::mistake::{Mistake, Report};
use crate::config::text::Texts;

/// What a check found: the text to print and whether it is good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// The mistakes, or a summary.
    pub text: String,
    /// 0 without a mistake, else 2.
    pub exit_code: u8,
}

/// Checks the configuration at `path` and every file it includes. Whatever is wrong with an included file
/// counts, though a running proxy would go on without it.
#[must_use]
pub fn check(path: &Path) -> Checked {
    let texts = Texts::read(path);
    match assemble(&texts, None) {
        Ok(assembled) if assembled.warnings.is_empty() => {
            let [domains, tenants, upstreams, routes] = assembled.claims.counts();
            let files = assembled.included.len() + 1;
            let text = format!(
                "{}: no mistakes\n{files} files, {tenants} tenants, {domains} domains, \
                 {upstreams} upstreams, {routes} routes",
                path.display()
            );
            let exit_code = 0;
            Checked { text, exit_code }
        }
        Ok(assembled) => refused(&assembled.warnings),
        Err(mistakes) => refused(&mistakes),
    }
}

fn refused(mistakes: &[Mistake]) -> Checked {
    Checked {
        text: Report(mistakes).to_string(),
        exit_code: 2,
    }
}

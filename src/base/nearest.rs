//! What a misspelt word was most likely meant to be.

/// The one of `known` that `text` was most likely meant to be.
#[must_use]
pub fn nearest<'k>(text: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    // Longer ones are not misspelt but made up; the measure is quadratic in their length.
    if text.len() > 64 {
        return None;
    }
    let scored = known
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(text, candidate), candidate));
    let best = scored.max_by(|(a, _), (b, _)| a.total_cmp(b))?;
    (best.0 >= 0.75).then_some(best.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_known_word_is_found_and_far_ones_are_not() {
        let known = ["addresses", "name", "protocol"];
        assert_eq!(nearest("adress", known), Some("addresses"));
        assert_eq!(nearest("nmae", known), Some("name"));
        assert_eq!(nearest("zzz", known), None);
        assert_eq!(nearest(&"a".repeat(10_000), known), None);
    }
}

//! The known name that a mistyped name stands for.

/// The known name that is nearest to `name`, for an error message. Case is ignored; a replaced, added or missing
/// character counts as one edit, and so do two swapped neighbours. `None` if even the nearest name differs in more than
/// a third of its characters.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_lowercase();
    let edits = |known: &str| strsim::osa_distance(&name, &known.to_lowercase());
    let longest = |known: &str| known.chars().count().max(name.chars().count());
    let candidates = known.into_iter().map(|known| (edits(known), known));
    let near = candidates.filter(|&(edits, known)| 3 * edits <= longest(known));
    near.min_by_key(|&(edits, _)| edits).map(|(_, known)| known)
}

/// The end of an error message: `; did you mean x?` with the nearest known name, or nothing.
pub(crate) fn did_you_mean<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    nearest(name, known).map_or_else(String::new, |name| format!("; did you mean {name}?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_found_and_a_distant_one_is_not() {
        let known = ["mrpc", "sst2", "stsb", "entailment", "not_entailment", "0", "1"];
        for (name, expected) in [
            ("mrcp", Some("mrpc")),
            ("SST2", Some("sst2")),
            ("sts", Some("stsb")),
            ("entailement", Some("entailment")),
            ("non_entailment", Some("not_entailment")),
            ("2", None),
            ("neutral", None),
            ("", None),
        ] {
            assert_eq!(nearest(name, known), expected, "{name}");
        }
        assert_eq!(did_you_mean("mrcp", known), "; did you mean mrpc?");
        assert_eq!(did_you_mean("neutral", known), "");
    }
}

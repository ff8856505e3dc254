//! The names of tensors in a weights file, and the canonical names that they stand for.

use std::borrow::Cow;

/// The canonical name of the word embeddings.
pub(super) const WORD_EMBEDDINGS: &str = "embeddings.word_embeddings.weight";

/// Tensors that `transformers` ties, by canonical name: the tensor of the model, and its other name in a file.
pub(super) const TIED: [(&str, &str); 4] = [
    (WORD_EMBEDDINGS, "cls.predictions.decoder.weight"),
    (WORD_EMBEDDINGS, "lm_head.decoder.weight"),
    ("cls.predictions.bias", "cls.predictions.decoder.bias"),
    ("lm_head.bias", "lm_head.decoder.bias"),
];

/// Part of a name that every encoder has exactly once.
const ANCHOR: &str = "embeddings.position_embeddings.";
/// The prefixes of `transformers`.
pub(super) const FAMILIES: [&str; 2] = ["bert.", "roberta."];
/// Number of names that an error shows.
const SHOWN: usize = 3;

/// The canonical name of a tensor, from its name in the file without a wrapper's prefix.
pub(super) fn canonical_name(name: &str) -> Cow<'_, str> {
    let name = FAMILIES.iter().find_map(|prefix| name.strip_prefix(prefix)).unwrap_or(name);
    match name.rsplit_once('.') {
        Some((module, "gamma")) => format!("{module}.weight").into(),
        Some((module, "beta")) => format!("{module}.bias").into(),
        _ => name.into(),
    }
}

/// The prefix that a wrapper (`DataParallel`, `torch.compile`, a class with the model as an attribute) put before all
/// names, with its dot: `module.`, `_orig_mod.`, `model.`.
pub(super) fn wrapper_prefix<'a>(names: &[&'a str]) -> Option<&'a str> {
    let mut before = names.iter().filter_map(|name| name.find(ANCHOR).map(|at| &name[..at]));
    let first = before.next()?;
    if before.any(|other| other != first) {
        return None;
    }
    let is_part = |start: &str| start.is_empty() || start.ends_with('.');
    let family = FAMILIES.iter().find_map(|family| first.strip_suffix(family).filter(|start| is_part(start)));
    let prefix = family.unwrap_or(first);
    let is_common = |prefix: &str| names.iter().all(|name| name.starts_with(prefix));
    (!prefix.is_empty() && is_part(prefix) && is_common(prefix)).then_some(prefix)
}

/// The names of a file that resemble the canonical `name`: those that end in the most of its parts, else the first ones.
pub(super) fn similar<'a>(name: &str, names: impl Iterator<Item = &'a str> + Clone) -> Vec<String> {
    let common = |other: &str| {
        let other = canonical_name(other).into_owned();
        let parts = name.rsplit('.').zip(other.rsplit('.'));
        let torch = |part: &'_ str| part.trim_end_matches("_orig").trim_end_matches("_mask").to_owned();
        parts.take_while(|&(a, b)| a == torch(b)).count()
    };
    let most = names.clone().map(common).max().unwrap_or(0);
    let alike = names.filter(|other| most < 2 || common(other) == most);
    alike.take(SHOWN).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_names_have_no_prefix_and_no_old_spelling() {
        assert_eq!(canonical_name("bert.embeddings.LayerNorm.gamma"), "embeddings.LayerNorm.weight");
        assert_eq!(
            canonical_name("roberta.encoder.layer.0.output.LayerNorm.beta"),
            "encoder.layer.0.output.LayerNorm.bias"
        );
        assert_eq!(canonical_name("cls.predictions.bias"), "cls.predictions.bias");
        assert_eq!(canonical_name("bertha.gamma.weight"), "bertha.gamma.weight");
        assert_eq!(canonical_name("gamma"), "gamma");
    }

    #[test]
    fn one_prefix_on_all_names_is_found() {
        let position = "embeddings.position_embeddings.weight";
        let prefix = |prefix: &str, family: &str, other: &str| {
            let names = [format!("{prefix}{family}{position}"), format!("{other}classifier.weight")];
            wrapper_prefix(&names.each_ref().map(String::as_str)).map(str::to_owned)
        };
        for wrapper in ["module.", "_orig_mod.", "model.", "module._orig_mod.", "bert_model.", "0.auto_model."] {
            for family in ["", "bert.", "roberta."] {
                assert_eq!(prefix(wrapper, family, wrapper).as_deref(), Some(wrapper), "{wrapper}{family}");
                assert_eq!(prefix(wrapper, family, ""), None, "not on all names");
            }
        }
        assert_eq!((prefix("", "bert.", ""), prefix("", "", "")), (None, None));
        let twice = [format!("a.{position}"), format!("b.{position}")];
        assert_eq!(wrapper_prefix(&twice.each_ref().map(String::as_str)), None);
    }

    #[test]
    fn similar_names_end_in_the_same_parts() {
        let names = ["x.embeddings.words.weight", "x.dense.weight", "y.z.dense.weight", "n.q.weight_orig", "bias"];
        let similar = |name| similar(name, names.into_iter());
        assert_eq!(similar("pooler.dense.weight"), ["x.dense.weight", "y.z.dense.weight"]);
        assert_eq!(similar("m.q.weight"), ["n.q.weight_orig"]);
        assert_eq!(similar("other"), names[..3]);
    }
}

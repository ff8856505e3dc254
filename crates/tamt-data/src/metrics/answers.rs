//! Comparison of a predicted answer with a gold answer, as in the official scripts of `SQuAD`.

use std::collections::HashMap;

/// Normalises an answer: lower case, without ASCII punctuation and articles, with one space between words.
pub fn normalize_answer(answer: &str) -> String {
    let kept: String = answer.to_lowercase().chars().filter(|c| !c.is_ascii_punctuation()).collect();
    let without_articles = remove_articles(&kept);
    without_articles.split(is_space).filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

/// 1 if two answers are equal after normalisation, else 0.
pub fn exact_match(prediction: &str, gold: &str) -> f64 {
    f64::from(u8::from(normalize_answer(prediction) == normalize_answer(gold)))
}

/// F1 of the words of two normalised answers:
///
/// ```text
/// common = Σ over words min(count in prediction, count in gold)
/// precision = common / words of prediction,  recall = common / words of gold
/// F1 = 2 precision recall / (precision + recall)
/// ```
///
/// If an answer has no words, F1 is 1 if the other has none either, else 0. The script of `SQuAD` 2.0 has the same rule;
/// the script of version 1.1 gives 0 in both cases, but its gold answers all have words.
pub fn token_f1(prediction: &str, gold: &str) -> f64 {
    let (prediction, gold) = (normalize_answer(prediction), normalize_answer(gold));
    let words = |text: &str| text.split(' ').filter(|word| !word.is_empty()).count();
    let (predicted, right) = (words(&prediction), words(&gold));
    if predicted == 0 || right == 0 {
        return f64::from(u8::from(predicted == right));
    }
    let mut left: HashMap<&str, usize> = HashMap::new();
    for word in gold.split(' ') {
        *left.entry(word).or_default() += 1;
    }
    let mut common = 0_usize;
    for word in prediction.split(' ') {
        if let Some(count) = left.get_mut(word)
            && *count > 0
        {
            *count -= 1;
            common += 1;
        }
    }
    if common == 0 {
        return 0.0;
    }
    let precision = common as f64 / predicted as f64;
    let recall = common as f64 / right as f64;
    2.0 * precision * recall / (precision + recall)
}

/// Replaces each match of the regular expression `\b(a|an|the)\b` by a space.
fn remove_articles(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for run in text.split_inclusive(|c| !is_word(c)) {
        let word = run.trim_end_matches(|c| !is_word(c));
        if matches!(word, "a" | "an" | "the") {
            out.push(' ');
            out.push_str(&run[word.len()..]);
        } else {
            out.push_str(run);
        }
    }
    out
}

/// Whether Python's regular expressions count `c` as part of a word.
fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Whether Python's `str.split` splits at `c`: white space and the four ASCII separators.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normalization_follows_the_official_script() {
        for (answer, normal) in [
            ("The  Denver-Broncos!", "denverbroncos"),
            ("an apple, a day\u{a0}and the theory", "apple day and theory"),
            ("A.", ""),
            ("the-a", "thea"),
            ("É–the–x", "é– –x"),
            ("a\u{1f}b", "b"),
        ] {
            assert_eq!(normalize_answer(answer), normal, "{answer:?}");
        }
    }

    #[test]
    fn words_count_as_often_as_in_both() {
        assert_eq!(token_f1("red red blue", "red blue blue"), 2.0 / 3.0);
        assert_eq!(token_f1("the", "a"), 1.0);
        assert_eq!(token_f1("the", "a cat"), 0.0);
        assert_eq!(exact_match("The Cat.", "cat"), 1.0);
    }
}

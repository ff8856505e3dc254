//! The texts of a request, in each shape that clients send.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};

use crate::settings::MOST_INPUTS;

/// One text, a list of texts, or a list of such lists.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Inputs {
    One(String),
    Flat(Vec<String>),
    Nested(Vec<Vec<String>>),
}

/// A text, or a list of texts.
enum Element {
    Text(String),
    List(Vec<String>),
}

const TOKENS: &str = "token ids depend on the tokenizer that made them; send texts";

impl<'de> Deserialize<'de> for Inputs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Shapes;
        impl<'de> Visitor<'de> for Shapes {
            type Value = Inputs;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or a list of texts")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Inputs, E> {
                Ok(Inputs::One(text.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Inputs, A::Error> {
                let Some(first) = list.next_element::<Element>()? else { return Ok(Inputs::Flat(Vec::new())) };
                let mut inputs = match first {
                    Element::Text(text) => Inputs::Flat(vec![text]),
                    Element::List(texts) => Inputs::Nested(vec![texts]),
                };
                while let Some(next) = list.next_element::<Element>()? {
                    match (&mut inputs, next) {
                        (Inputs::Flat(all), Element::Text(text)) => pushed(all, text)?,
                        (Inputs::Nested(all), Element::List(texts)) => pushed(all, texts)?,
                        _ => return Err(A::Error::custom("texts and lists of texts in one list")),
                    }
                }
                Ok(inputs)
            }
        }
        deserializer.deserialize_any(Shapes)
    }
}

/// Adds an entry. The limit keeps entries of a few bytes from taking many times the memory of the body.
fn pushed<T, E: Error>(all: &mut Vec<T>, next: T) -> Result<(), E> {
    if all.len() == MOST_INPUTS {
        return Err(E::custom(format_args!("more than {MOST_INPUTS} texts")));
    }
    all.push(next);
    Ok(())
}

impl<'de> Deserialize<'de> for Element {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Shapes;
        impl<'de> Visitor<'de> for Shapes {
            type Value = Element;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or a list of texts")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Element, E> {
                Ok(Element::Text(text.to_owned()))
            }

            fn visit_u64<E: Error>(self, _: u64) -> Result<Element, E> {
                Err(E::custom(TOKENS))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Element, A::Error> {
                let mut texts = Vec::new();
                while let Some(next) = list.next_element::<Element>()? {
                    match next {
                        Element::Text(text) if texts.len() < 2 => texts.push(text),
                        Element::Text(_) => return Err(A::Error::custom("a list in the list holds a text or a pair")),
                        Element::List(_) => return Err(A::Error::custom("a list in a list of texts")),
                    }
                }
                Ok(Element::List(texts))
            }
        }
        deserializer.deserialize_any(Shapes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Inputs, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn a_text_a_list_and_a_list_of_lists_are_told_apart() {
        let texts = |all: &[&str]| all.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        assert_eq!(read(r#""a\u00e4""#), Ok(Inputs::One("aä".to_owned())));
        assert_eq!(read(r#"["a", ""]"#), Ok(Inputs::Flat(texts(&["a", ""]))));
        assert_eq!(read("[]"), Ok(Inputs::Flat(Vec::new())));
        assert_eq!(
            read(r#"[["a"], ["b", "c"], []]"#),
            Ok(Inputs::Nested(vec![texts(&["a"]), texts(&["b", "c"]), vec![]]))
        );
    }

    #[test]
    fn other_shapes_are_refused_with_a_reason() {
        for (json, reason) in [
            ("[1, 2]", TOKENS),
            ("[[1, 2]]", TOKENS),
            (r#"["a", ["b"]]"#, "texts and lists of texts in one list"),
            (r#"["a", 3]"#, TOKENS),
            ("[[[\"a\"]]]", "a list in a list of texts"),
            (r#"[["a", "b", "c"]]"#, "a list in the list holds a text or a pair"),
            ("{}", "invalid type: map, expected a text or a list of texts"),
            ("[null]", "invalid type: null, expected a text or a list of texts"),
            ("true", "invalid type: boolean `true`, expected a text or a list of texts"),
            (r#""\ud800""#, "hex escape"),
        ] {
            let error = read(json).unwrap_err();
            assert!(error.contains(reason), "{json}: {error}");
        }
        let many = format!("[{}\"\"]", "\"\",".repeat(MOST_INPUTS));
        assert!(read(&many).unwrap_err().contains("more than 16384 texts"));
    }
}

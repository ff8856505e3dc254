//! How a tokenizer joins one text or two with its special tokens.

use std::path::Path;

use serde_json::Value;

use crate::error::Result;
use crate::tokenizer::json::bad;

/// `cls` a `sep`, and `cls` a `sep`... b `sep` for a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Template {
    pub(super) cls: u32,
    pub(super) sep: u32,
    /// Number of `sep` between the texts of a pair.
    pub(super) separators: usize,
    /// The token type of the second text and its `sep`; all else is 0.
    pub(super) second_type: u32,
}

/// An element of a template: a text of the pair, or a token; with its token type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Piece {
    Text(usize, u32),
    Token(u32, u32),
}

/// The template in the post-processor of a `tokenizer.json`, which `path` names.
///
/// # Errors
///
/// [`Error::BadTokenizer`](crate::Error::BadTokenizer) if there is none, or one of another form.
pub(super) fn of_description(description: &Value, path: &Path) -> Result<Template> {
    let processor = &description["post_processor"];
    let steps = match processor["processors"].as_array() {
        Some(steps) => steps.as_slice(),
        None => std::slice::from_ref(processor),
    };
    let mut joining = steps.iter().filter(|step| !step.is_null() && step["type"] != "ByteLevel");
    let Some(step) = joining.next() else {
        let reason = "it has no post_processor that adds the special tokens of a sequence; tokenizer_class in \
                      tokenizer_config.json (BertTokenizer, RobertaTokenizer) stands for one";
        return Err(bad(path, reason.to_owned()));
    };
    let template = if joining.next().is_some() { None } else { of_step(step) };
    template.ok_or_else(|| {
        let reason = "its post_processor is another than `cls a sep` for a text and `cls a sep b sep` for a pair, \
                      with one sep or more in the middle";
        bad(path, reason.to_owned())
    })
}

fn of_step(step: &Value) -> Option<Template> {
    let id = |key: &str| u32::try_from(step[key][1].as_u64()?).ok();
    match step["type"].as_str()? {
        "BertProcessing" => Some(Template { cls: id("cls")?, sep: id("sep")?, separators: 1, second_type: 1 }),
        "RobertaProcessing" => Some(Template { cls: id("cls")?, sep: id("sep")?, separators: 2, second_type: 0 }),
        "TemplateProcessing" => of_pieces(&pieces(step, "single")?, &pieces(step, "pair")?),
        _ => None,
    }
}

/// The elements of one template of a `TemplateProcessing` step.
fn pieces(step: &Value, which: &str) -> Option<Vec<Piece>> {
    let piece = |piece: &Value| {
        let (kind, fields) = piece.as_object()?.iter().next()?;
        let token_type = u32::try_from(fields["type_id"].as_u64()?).ok()?;
        let name = fields["id"].as_str()?;
        match (kind.as_str(), name) {
            ("Sequence", "A") => Some(Piece::Text(0, token_type)),
            ("Sequence", "B") => Some(Piece::Text(1, token_type)),
            ("SpecialToken", name) => match step["special_tokens"][name]["ids"].as_array()?.as_slice() {
                [id] => Some(Piece::Token(u32::try_from(id.as_u64()?).ok()?, token_type)),
                _ => None,
            },
            _ => None,
        }
    };
    step[which].as_array()?.iter().map(piece).collect()
}

fn of_pieces(single: &[Piece], pair: &[Piece]) -> Option<Template> {
    let [Piece::Token(cls, 0), Piece::Text(0, 0), Piece::Token(sep, 0)] = *single else {
        return None;
    };
    let [Piece::Token(first, 0), Piece::Text(0, 0), ref middle @ .., Piece::Text(1, second_type), last] = *pair else {
        return None;
    };
    let fits = first == cls
        && last == Piece::Token(sep, second_type)
        && !middle.is_empty()
        && middle.iter().all(|piece| *piece == Piece::Token(sep, 0));
    fits.then_some(Template { cls, sep, separators: middle.len(), second_type })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(processor: &Value) -> Result<Template> {
        of_description(&json!({"post_processor": processor}), Path::new("tokenizer.json"))
    }

    fn template(single: &str, pair: &str) -> Value {
        let pieces = |text: &str| -> Vec<Value> {
            let piece = |word: &str| {
                let (name, token_type) = word.split_once(':').unwrap();
                let kind = if name.len() == 1 { "Sequence" } else { "SpecialToken" };
                json!({kind: {"id": name, "type_id": token_type.parse::<u32>().unwrap()}})
            };
            text.split(' ').map(piece).collect()
        };
        let token = |name: &str, id: u32| json!({"id": name, "ids": [id], "tokens": [name]});
        json!({
            "type": "TemplateProcessing",
            "single": pieces(single),
            "pair": pieces(pair),
            "special_tokens": {"<s>": token("<s>", 5), "</s>": token("</s>", 6)},
        })
    }

    #[test]
    fn each_kind_of_post_processor_gives_its_template() {
        let bert = json!({"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]});
        assert_eq!(read(&bert).unwrap(), Template { cls: 2, sep: 3, separators: 1, second_type: 1 });
        let roberta = json!({"type": "RobertaProcessing", "sep": ["</s>", 2], "cls": ["<s>", 0], "trim_offsets": true});
        assert_eq!(read(&roberta).unwrap(), Template { cls: 0, sep: 2, separators: 2, second_type: 0 });
        let one = template("<s>:0 A:0 </s>:0", "<s>:0 A:0 </s>:0 B:1 </s>:1");
        assert_eq!(read(&one).unwrap(), Template { cls: 5, sep: 6, separators: 1, second_type: 1 });
        let sequence = json!({"type": "Sequence", "processors": [{"type": "ByteLevel"}, one]});
        assert_eq!(read(&sequence).unwrap(), Template { cls: 5, sep: 6, separators: 1, second_type: 1 });
        let two = template("<s>:0 A:0 </s>:0", "<s>:0 A:0 </s>:0 </s>:0 B:0 </s>:0");
        assert_eq!(read(&two).unwrap(), Template { cls: 5, sep: 6, separators: 2, second_type: 0 });
    }

    #[test]
    fn a_template_of_another_form_is_refused() {
        for (single, pair) in [
            ("A:0 </s>:0", "A:0 </s>:0 B:0 </s>:0"),
            ("<s>:0 A:0 </s>:0", "<s>:0 A:0 B:0 </s>:0"),
            ("<s>:0 A:0 </s>:0", "<s>:0 B:0 </s>:0 A:0 </s>:0"),
            ("<s>:0 A:0 </s>:0", "<s>:0 A:0 </s>:0 B:1 </s>:0"),
            ("<s>:0 A:0 </s>:0", "<s>:0 A:0 </s>:0 <s>:0 B:0 </s>:0"),
            ("<s>:1 A:0 </s>:0", "<s>:0 A:0 </s>:0 B:0 </s>:0"),
        ] {
            assert!(read(&template(single, pair)).is_err(), "{single}; {pair}");
        }
        for other in
            [json!(null), json!({"type": "ByteLevel"}), json!({"type": "Sequence", "processors": []}), json!(3)]
        {
            assert!(read(&other).is_err(), "{other}");
        }
    }
}

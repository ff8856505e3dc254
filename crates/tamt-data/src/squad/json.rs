//! The structure of a `SQuAD` file. Other keys are ignored.

use serde::de::Error;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

#[derive(Deserialize)]
pub(super) struct File {
    pub(super) data: Vec<Article>,
}

#[derive(Deserialize)]
pub(super) struct Article {
    pub(super) paragraphs: Vec<Paragraph>,
}

#[derive(Deserialize)]
pub(super) struct Paragraph {
    pub(super) context: String,
    pub(super) qas: Vec<Qa>,
}

#[derive(Deserialize)]
pub(super) struct Qa {
    pub(super) id: Id,
    pub(super) question: String,
    pub(super) answers: Option<Vec<Answer>>,
    pub(super) is_impossible: Option<bool>,
}

#[derive(Deserialize)]
pub(super) struct Answer {
    pub(super) text: String,
    #[serde(default)]
    pub(super) answer_start: Position,
}

/// A text, or the JSON of another value.
pub(super) struct Id(pub(super) String);

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // A `Value` would round an integer of 2^64 or more.
        let json = Box::<RawValue>::deserialize(deserializer)?;
        match serde_json::from_str(json.get()).map_err(D::Error::custom)? {
            Value::Number(_) => Ok(Self(json.get().to_owned())),
            Value::String(text) => Ok(Self(text)),
            other => Ok(Self(other.to_string())),
        }
    }
}

/// A position in characters: an integer, also as a float or as text. Absent, null or -1 in files without positions.
#[derive(Default)]
pub(super) struct Position(pub(super) Option<i64>);

impl<'de> Deserialize<'de> for Position {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let number = match &value {
            Value::Null => return Ok(Self(None)),
            Value::Number(number) => number.as_f64(),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        // Positions are far below 2^53, from where on floats skip integers.
        match number.filter(|number| number.fract() == 0.0 && number.abs() < 9e15) {
            Some(number) => Ok(Self(Some(number as i64))),
            None => Err(D::Error::custom(format!("answer_start is {value}, which is no position"))),
        }
    }
}

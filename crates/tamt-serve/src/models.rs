//! The models of a server, by name.

use tamt::encode::{EncodeSettings, Encoder};
use tamt::predict::Classifier;
use tamt::{Compute, Result as EngineResult};
use tamt_data::{Pair, Tokenizer};

use crate::error::{Error, Result};

/// What a model gives for a text.
#[derive(Debug)]
pub enum Kind {
    /// A vector.
    Encoder {
        /// The model, dense or under a ticket.
        encoder: Encoder,
        /// How a text becomes a vector, in all requests.
        settings: EncodeSettings,
    },
    /// Scores of labels, or a number.
    Classifier(Box<Classifier>),
}

/// A model under the name by which requests choose.
#[derive(Debug)]
pub struct Served {
    /// The name.
    pub name: String,
    /// The SHA-256 of the weights file, in hexadecimal.
    pub sha256: String,
    /// The SHA-256 of the ticket, if the model is under one.
    pub ticket: Option<String>,
    /// The model.
    pub kind: Kind,
}

impl Served {
    pub(crate) fn is_encoder(&self) -> bool {
        matches!(self.kind, Kind::Encoder { .. })
    }

    /// Numbers that the model gives for a text.
    pub(crate) fn width(&self) -> usize {
        match &self.kind {
            Kind::Encoder { encoder, .. } => encoder.base().model.config.hidden_size,
            Kind::Classifier(classifier) => classifier.outputs(),
        }
    }

    /// Most tokens of a text.
    pub(crate) fn max_length(&self) -> usize {
        match &self.kind {
            Kind::Encoder { settings, .. } => settings.max_length,
            Kind::Classifier(classifier) => classifier.max_length(),
        }
    }

    fn tokenizer(&self) -> &Tokenizer {
        match &self.kind {
            Kind::Encoder { encoder, .. } => &encoder.base().tokenizer,
            Kind::Classifier(classifier) => &classifier.model().tokenizer,
        }
    }

    /// The side at which texts are cut.
    pub(crate) fn cut_side(&self) -> &'static str {
        if self.tokenizer().truncates_left() { "left" } else { "right" }
    }

    /// The tokens of a text or a pair, cut to the maximal length.
    pub(crate) fn tokens(&self, first: &str, second: Option<&str>) -> EngineResult<Pair> {
        match &self.kind {
            Kind::Encoder { encoder, settings } => {
                Ok(Pair { ids: settings.tokens(encoder.base(), first)?, type_ids: Vec::new() })
            }
            Kind::Classifier(classifier) => classifier.tokens(first, second),
        }
    }

    /// The number of tokens that a text or a pair has without a cut.
    pub(crate) fn full_length(&self, first: &str, second: Option<&str>) -> EngineResult<usize> {
        let tokenizer = self.tokenizer();
        let first = match &self.kind {
            Kind::Encoder { settings, .. } => settings.prompted(first),
            Kind::Classifier(_) => first.into(),
        };
        let second = second.map(|second| Ok::<_, tamt_data::Error>(tokenizer.ids(second)?.len())).transpose()?;
        let specials = 2 + second.map_or(0, |length| tokenizer.specials().pair_separators + length);
        Ok(tokenizer.ids(&first)?.len() + specials)
    }

    /// The id of a token that every tokenizer of such a model has.
    pub(crate) fn some_token(&self) -> u32 {
        self.tokenizer().specials().cls
    }
}

/// The models of a server. Requests that name no model get the first one of the kind that they need.
#[derive(Debug)]
pub struct Models {
    pub(crate) all: Vec<Served>,
    pub(crate) compute: Compute,
}

impl Models {
    /// Models that were prepared for the same kernel and precision.
    ///
    /// # Errors
    /// [`Error::NoModels`], [`Error::SameName`].
    pub fn new(all: Vec<Served>, compute: Compute) -> Result<Self> {
        if all.is_empty() {
            return Err(Error::NoModels);
        }
        let twice = all.iter().enumerate().find(|(i, model)| all[..*i].iter().any(|other| other.name == model.name));
        match twice {
            Some((_, model)) => Err(Error::SameName { name: model.name.clone() }),
            None => Ok(Self { all, compute }),
        }
    }

    /// The position of a model.
    pub(crate) fn find(&self, name: &str) -> Option<usize> {
        self.all.iter().position(|model| model.name == name)
    }

    /// The first encoder, or the first classifier.
    pub(crate) fn first(&self, encoder: bool) -> Option<usize> {
        self.all.iter().position(|model| model.is_encoder() == encoder)
    }
}

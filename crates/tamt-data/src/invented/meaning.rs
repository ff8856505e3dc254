//! Meanings of sentences, independent of their wording. Tasks compare meanings; models see only words.

use crate::invented::grammar::{Adjective, Degree, Kind, Noun, Relation, Tense, Verb};

/// Index of a person of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Person(pub usize);

/// Index of a town of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Town(pub usize);

/// Index of a region of the world. Each town lies in one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Region(pub usize);

/// The referent of a phrase.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Entity {
    /// A thing, named by a noun.
    Thing(Noun),
    /// A person, named by a proper name.
    Person(Person),
    /// A town.
    Town(Town),
    /// A region.
    Region(Region),
}

impl Entity {
    /// Whether the entity has a proper name.
    pub fn is_named(self) -> bool {
        !matches!(self, Self::Thing(_))
    }
}

/// A phrase that refers to an entity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NounPhrase {
    /// The entity.
    pub entity: Entity,
    /// Whether the phrase is in the plural; always false for a named entity.
    pub plural: bool,
    /// Whether the determiner is "the", not "a".
    pub definite: bool,
    /// Whether a pronoun replaces the phrase.
    pub pronoun: bool,
    /// The adjectives of the phrase.
    pub adjectives: Vec<Adjective>,
    /// A companion ("with a .."). It separates a subject from its verb, which still agrees with the subject.
    pub companion: Option<Box<NounPhrase>>,
}

impl From<Entity> for NounPhrase {
    /// A definite singular phrase without adjectives.
    fn from(entity: Entity) -> Self {
        Self { entity, plural: false, definite: true, pronoun: false, adjectives: Vec::new(), companion: None }
    }
}

/// The predicate of a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Predicate {
    /// The subject performs an action.
    Act {
        /// The verb; the verb of a relation states a fact.
        verb: Verb,
        /// The object of a transitive verb.
        object: Option<NounPhrase>,
    },
    /// The subject has a quality.
    Quality {
        /// The quality.
        adjective: Adjective,
        /// The degree of the quality.
        degree: Option<Degree>,
    },
    /// The subject is of a kind.
    SortOf(Kind),
}

/// The meaning of a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sentence {
    /// The subject.
    pub subject: NounPhrase,
    /// The predicate.
    pub predicate: Predicate,
    /// Whether the sentence is negated.
    pub negated: bool,
    /// The tense.
    pub tense: Tense,
    /// Index of an adverb of the tense.
    pub adverb: Option<usize>,
    /// The town of the event.
    pub place: Option<Town>,
}

impl Sentence {
    /// An affirmative sentence in the present, without adverb and place.
    pub fn new(subject: NounPhrase, predicate: Predicate) -> Self {
        Self { subject, predicate, negated: false, tense: Tense::Present, adverb: None, place: None }
    }

    /// The object of a transitive verb.
    pub fn object(&self) -> Option<&NounPhrase> {
        match &self.predicate {
            Predicate::Act { object, .. } => object.as_ref(),
            Predicate::Quality { .. } | Predicate::SortOf(_) => None,
        }
    }
}

/// A fact of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fact {
    /// The subject.
    pub subject: Entity,
    /// The relation.
    pub relation: Relation,
    /// The object.
    pub value: Entity,
}

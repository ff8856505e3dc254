//! What a sentence says, apart from how it is put. Tasks compare meanings; models see only the words.

use super::lexicon::{Adjective, Degree, Kind, Noun, Polarity, Relation, Tense, Verb};

/// A person of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Person(pub usize);

/// A town of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Town(pub usize);

/// A region of the world, where towns lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Region(pub usize);

/// What is spoken of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Entity {
    /// Something that a noun names.
    Thing(Noun),
    /// Somebody with a name.
    Person(Person),
    /// A town.
    Town(Town),
    /// A region.
    Region(Region),
}

impl Entity {
    /// Whether it has a name of its own.
    #[must_use]
    pub fn is_named(self) -> bool {
        !matches!(self, Self::Thing(_))
    }
}

/// An entity, as a sentence speaks of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NounPhrase {
    /// What it is.
    pub entity: Entity,
    /// Several of it; never of a named entity.
    pub plural: bool,
    /// Known already: "the", not "a".
    pub definite: bool,
    /// A pronoun stands for it.
    pub pronoun: bool,
    /// What it is like.
    pub adjectives: Vec<Adjective>,
    /// What is with it. Stands between a subject and its verb, which agrees with the subject all the same.
    pub companion: Option<Box<NounPhrase>>,
}

impl From<Entity> for NounPhrase {
    /// One of it, known already, plainly named.
    fn from(entity: Entity) -> Self {
        Self { entity, plural: false, definite: true, pronoun: false, adjectives: Vec::new(), companion: None }
    }
}

/// What a sentence says of its subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Predicate {
    /// It does something, to something.
    Act {
        /// What it does; the verb of a relation states a fact.
        verb: Verb,
        /// What it is done to.
        object: Option<NounPhrase>,
    },
    /// It is like this.
    Quality {
        /// How it is.
        adjective: Adjective,
        /// How much so.
        degree: Option<Degree>,
    },
    /// It is a sort of this.
    SortOf(Kind),
}

/// A sentence's meaning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sentence {
    /// Of what something is said.
    pub subject: NounPhrase,
    /// What is said.
    pub predicate: Predicate,
    /// It is not so.
    pub negated: bool,
    /// When.
    pub tense: Tense,
    /// Which of the tense's adverbs says so too.
    pub adverb: Option<usize>,
    /// In which town.
    pub place: Option<Town>,
}

impl Sentence {
    /// A bare statement about the present.
    #[must_use]
    pub fn new(subject: NounPhrase, predicate: Predicate) -> Self {
        Self { subject, predicate, negated: false, tense: Tense::Present, adverb: None, place: None }
    }

    /// The object, if it has one.
    #[must_use]
    pub fn object(&self) -> Option<&NounPhrase> {
        match &self.predicate {
            Predicate::Act { object, .. } => object.as_ref(),
            Predicate::Quality { .. } | Predicate::SortOf(_) => None,
        }
    }
}

/// Something that is so in the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fact {
    /// Of whom or what.
    pub subject: Entity,
    /// In which relation it stands.
    pub relation: Relation,
    /// To whom or what.
    pub value: Entity,
}

impl Polarity {
    /// The opposite; plain has none but itself.
    #[must_use]
    pub fn opposite(self) -> Self {
        match self {
            Self::Good => Self::Bad,
            Self::Bad => Self::Good,
            Self::Plain => Self::Plain,
        }
    }
}

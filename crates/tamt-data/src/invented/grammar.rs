//! Grammatical categories, and indices of words.

/// Number of kinds of nouns. Kind 0 is people, named by their trades; kind 1 is animals.
pub const KINDS: usize = 8;
/// Number of themes of texts: trades and their vocabulary.
pub const THEMES: usize = 10;

/// Defines index types that the compiler tells apart.
macro_rules! index {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub usize);
    )+};
}

index! {
    /// Index of a noun.
    Noun,
    /// Index of a verb.
    Verb,
    /// Index of an adjective.
    Adjective,
    /// Index of a kind of things. A noun names the kind ("a tavo is a sort of mirka").
    Kind,
    /// Index of a theme. Each noun, verb and adjective belongs to one theme.
    Theme,
    /// Index of a word of degree ("very").
    Degree,
}

/// The gender of a noun, a name or a pronoun, with which its determiner and adjectives agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Gender {
    /// The gender of adjectives in `el`.
    First,
    /// The gender of adjectives in `em`.
    Second,
}

impl Gender {
    /// The other gender.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
        }
    }
}

/// The tense of a sentence, shown by the particle before the verb and by an optional adverb of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tense {
    /// The past, with a particle.
    Past,
    /// The present, without a particle.
    Present,
    /// The future, with a particle.
    Future,
}

/// The sentiment of an adjective.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Polarity {
    /// Praise.
    Good,
    /// Blame.
    Bad,
    /// Neither.
    Plain,
}

impl Polarity {
    /// The opposite polarity; `Plain` is its own opposite.
    #[must_use]
    pub fn opposite(self) -> Self {
        match self {
            Self::Good => Self::Bad,
            Self::Bad => Self::Good,
            Self::Plain => Self::Plain,
        }
    }
}

/// An ending, which is a separate word piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Suffix {
    /// Plural of a noun.
    Plural,
    /// Singular of a verb.
    OneDoes,
    /// Plural of a verb.
    ManyDo,
    /// Gender of an adjective.
    Of(Gender),
}

impl Suffix {
    /// All endings.
    pub const ALL: [Self; 5] =
        [Self::Plural, Self::OneDoes, Self::ManyDo, Self::Of(Gender::First), Self::Of(Gender::Second)];

    /// The spelling. Each ending starts with `e`, and no word ends in `e` or in `e` with a consonant, so a tokenizer splits
    /// a word from its ending in only one way.
    pub fn spelling(self) -> &'static str {
        match self {
            Self::Plural => "en",
            Self::OneDoes => "es",
            Self::ManyDo => "er",
            Self::Of(Gender::First) => "el",
            Self::Of(Gender::Second) => "em",
        }
    }
}

/// The relation that a verb states between named things.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Relation {
    /// A person lives in a town.
    LivesIn,
    /// A person owns a thing.
    Owns,
    /// A person works in a trade.
    WorksAs,
    /// A person likes a thing.
    Likes,
    /// A person is a friend of a person.
    Befriends,
    /// A town lies in a region.
    LiesIn,
}

impl Relation {
    /// All relations.
    pub const ALL: [Self; 6] = [Self::LivesIn, Self::Owns, Self::WorksAs, Self::Likes, Self::Befriends, Self::LiesIn];
}

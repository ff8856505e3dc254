//! The words of the invented language: their forms, and what they go with.

use std::collections::HashSet;

use super::draw::Draw;

/// Kinds of things that nouns name; kind 0 is people, by their trades, and kind 1 is animals.
pub const KINDS: usize = 8;
/// Themes that texts keep to: trades, and what goes with them.
pub const THEMES: usize = 10;
const NOUNS_PER_KIND: usize = 40;
const ACTIONS: usize = 90;
const DOINGS: usize = 30;
const PLAIN_ADJECTIVES: usize = 60;
const POLAR_ADJECTIVES: usize = 30;
const ADVERBS_PER_TENSE: usize = 3;
const DEGREES: usize = 4;

/// Index types, so that a noun is not taken for a verb.
macro_rules! index {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub usize);
    )+};
}

index! {
    /// A noun's meaning.
    Noun,
    /// A verb's meaning.
    Verb,
    /// An adjective's meaning.
    Adjective,
    /// A kind of things, itself named by a noun ("a tavo is a sort of mirka").
    Kind,
    /// What a text is about. Every noun, verb and adjective is at home in one.
    Theme,
    /// A word of degree ("very").
    Degree,
}

/// What a noun, a person's name or a pronoun agrees in with its determiner and adjectives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Gender {
    /// Adjectives end in `el`.
    First,
    /// Adjectives end in `em`.
    Second,
}

impl Gender {
    /// The one it is not.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
        }
    }
}

/// When something happens. An adverb of time, if there is one, and the particle before the verb both show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tense {
    /// Has a particle.
    Past,
    /// Has none.
    Present,
    /// Has a particle.
    Future,
}

/// What an adjective says of how its noun is liked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Polarity {
    /// Praise.
    Good,
    /// Blame.
    Bad,
    /// Neither.
    Plain,
}

/// An ending, a word piece of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Suffix {
    /// Several of a noun.
    Plural,
    /// A verb whose subject is one.
    OneDoes,
    /// A verb whose subjects are several.
    ManyDo,
    /// An adjective beside a noun of this gender.
    Of(Gender),
}

impl Suffix {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Plural, Self::OneDoes, Self::ManyDo, Self::Of(Gender::First), Self::Of(Gender::Second)];

    /// How it is spelled. Every ending starts with `e`, and no word ends in `e` or in `e` and a consonant, so a word
    /// and an ending come apart in one way only.
    #[must_use]
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

/// Words that mean the same and can stand for each other everywhere; the first is the commonest.
pub type Synonyms = Vec<String>;

/// What a noun is.
#[derive(Clone, Debug)]
pub struct NounEntry {
    /// Its words.
    pub forms: Synonyms,
    /// What its company agrees with; nothing in its spelling shows it.
    pub gender: Gender,
    /// What it is a sort of.
    pub kind: Kind,
}

/// What a verb is.
#[derive(Clone, Debug)]
pub struct VerbEntry {
    /// Its words.
    pub forms: Synonyms,
    /// Kinds that do it.
    pub subjects: Vec<Kind>,
    /// Kinds that it is done to; none for a verb without an object.
    pub objects: Vec<Kind>,
}

/// What an adjective is.
#[derive(Clone, Debug)]
pub struct AdjectiveEntry {
    /// Its words.
    pub forms: Synonyms,
    /// Praise, blame or neither.
    pub polarity: Polarity,
    /// Kinds of things that can be so.
    pub kinds: Vec<Kind>,
}

/// What a verb that relates named things says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Relation {
    /// A person lives in a town.
    LivesIn,
    /// A person owns a thing.
    Owns,
    /// A person works as.
    WorksAs,
    /// A person likes a thing.
    Likes,
    /// A person is a friend of a person.
    Befriends,
    /// A town lies in a region.
    LiesIn,
}

impl Relation {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::LivesIn, Self::Owns, Self::WorksAs, Self::Likes, Self::Befriends, Self::LiesIn];
}

/// Words that belong to the grammar. One each.
#[derive(Clone, Debug)]
pub struct Particles {
    /// "the", by gender.
    pub definite: [String; 2],
    /// "a", by gender.
    pub indefinite: [String; 2],
    /// "she", "he" and "they".
    pub pronouns: [String; 3],
    /// "in" a place.
    pub at: String,
    /// In company "with".
    pub with: String,
    /// Done "by".
    pub by: String,
    /// Before a verb whose subject suffers it.
    pub passive: String,
    /// "not".
    pub not: String,
    /// Before a verb of the past.
    pub past: String,
    /// Before a verb of the future.
    pub future: String,
    /// "is", which agrees like any verb.
    pub be: String,
    /// "a sort of".
    pub sort: String,
}

/// All words.
#[derive(Clone, Debug)]
pub struct Lexicon {
    /// Nouns, kind by kind.
    pub nouns: Vec<NounEntry>,
    /// Verbs with objects, then verbs without, then the relations in the order of [`Relation::ALL`].
    pub verbs: Vec<VerbEntry>,
    /// Adjectives: plain, good, bad.
    pub adjectives: Vec<AdjectiveEntry>,
    /// What each kind is called.
    pub kinds: Vec<NounEntry>,
    /// Words of degree.
    pub degrees: Vec<String>,
    /// Adverbs of past, present and future.
    pub adverbs: [Vec<String>; 3],
    /// Words of the grammar.
    pub particles: Particles,
    /// Names that nothing else is called, for the people and places of the world.
    pub names: Vec<String>,
    /// Every word, each once, in the order they were coined.
    pub words: Vec<String>,
}

impl Lexicon {
    /// The lexicon of a seed, with `names` names.
    pub(super) fn new(draw: &mut Draw, names: usize) -> Self {
        let mut coiner = Coiner { draw, taken: HashSet::new(), words: Vec::new(), meanings: 0 };
        let c = &mut coiner;
        let particles = Particles {
            definite: [c.coin(1), c.coin(1)],
            indefinite: [c.coin(1), c.coin(1)],
            pronouns: [c.coin(1), c.coin(1), c.coin(1)],
            at: c.coin(1),
            with: c.coin(1),
            by: c.coin(1),
            passive: c.coin(1),
            not: c.coin(1),
            past: c.coin(1),
            future: c.coin(1),
            be: c.coin(1),
            sort: c.coin(1),
        };
        let noun = |c: &mut Coiner<'_>, kind, forms| NounEntry {
            forms,
            gender: c.draw.pick(&[Gender::First, Gender::Second]),
            kind,
        };
        let kinds: Vec<_> = (0..KINDS)
            .map(|k| {
                let forms = vec![c.coin(2)];
                noun(c, Kind(k), forms)
            })
            .collect();
        let nouns: Vec<_> = (0..KINDS * NOUNS_PER_KIND)
            .map(|i| {
                let forms = c.synonyms(2);
                noun(c, Kind(i / NOUNS_PER_KIND), forms)
            })
            .collect();

        let mut verbs: Vec<_> = (0..ACTIONS).map(|_| c.verb(true)).collect();
        verbs.extend((0..DOINGS).map(|_| c.verb(false)));
        // What a relation goes with is a matter of the world's facts, not of kinds.
        verbs.extend(Relation::ALL.map(|_| VerbEntry {
            forms: vec![c.coin(2), c.coin(2)],
            subjects: Vec::new(),
            objects: Vec::new(),
        }));

        let polarities = std::iter::repeat_n(Polarity::Plain, PLAIN_ADJECTIVES)
            .chain(std::iter::repeat_n(Polarity::Good, POLAR_ADJECTIVES))
            .chain(std::iter::repeat_n(Polarity::Bad, POLAR_ADJECTIVES));
        let adjectives = polarities.map(|polarity| c.adjective(polarity)).collect();

        let degrees = (0..DEGREES).map(|_| c.coin(2)).collect();
        let adverbs = std::array::from_fn(|_| (0..ADVERBS_PER_TENSE).map(|_| c.coin(2)).collect());
        let names = (0..names).map(|_| c.coin(3)).collect();
        Self { nouns, verbs, adjectives, kinds, degrees, adverbs, particles, names, words: coiner.words }
    }

    /// Where a noun is at home: with every tenth of its kind, so that every theme has its common and its rare nouns.
    #[must_use]
    pub fn theme(&self, noun: Noun) -> Theme {
        Theme(noun.0 % THEMES)
    }

    /// Whether a verb is at home in a theme.
    #[must_use]
    pub fn suits(&self, verb: Verb, theme: Theme) -> bool {
        verb.0 % THEMES == theme.0
    }

    /// Whether an adjective is at home in a theme; praise and blame are everywhere.
    #[must_use]
    pub fn colours(&self, adjective: Adjective, theme: Theme) -> bool {
        self.adjectives[adjective.0].polarity != Polarity::Plain || adjective.0 % THEMES == theme.0
    }

    /// The nouns of a kind, commonest first.
    pub fn nouns_of(&self, kind: Kind) -> impl Iterator<Item = Noun> {
        let start = kind.0 * NOUNS_PER_KIND;
        (start..start + NOUNS_PER_KIND).map(Noun)
    }

    /// The verbs that a kind of things can be the subject of, commonest first; with objects if `transitive`.
    #[must_use]
    pub fn verbs_of(&self, subject: Kind, transitive: bool) -> Vec<Verb> {
        let range = if transitive { 0..ACTIONS } else { ACTIONS..ACTIONS + DOINGS };
        range.filter(|&v| self.verbs[v].subjects.contains(&subject)).map(Verb).collect()
    }

    /// The adjectives of a polarity that a kind of things can bear, commonest first.
    #[must_use]
    pub fn adjectives_of(&self, kind: Kind, polarity: Polarity) -> Vec<Adjective> {
        (0..self.adjectives.len())
            .filter(|&a| {
                let entry = &self.adjectives[a];
                entry.polarity == polarity && entry.kinds.contains(&kind)
            })
            .map(Adjective)
            .collect()
    }

    /// The verb of a relation.
    #[must_use]
    pub fn relation(&self, relation: Relation) -> Verb {
        Verb(ACTIONS + DOINGS + relation as usize)
    }

    /// The adverbs of a tense.
    #[must_use]
    pub fn adverbs_of(&self, tense: Tense) -> &[String] {
        &self.adverbs[tense as usize]
    }
}

/// Makes up words.
struct Coiner<'a> {
    draw: &'a mut Draw,
    taken: HashSet<String>,
    words: Vec<String>,
    /// How many meanings have been given words by [`Coiner::synonyms`].
    meanings: usize,
}

impl Coiner<'_> {
    fn coin(&mut self, syllables: usize) -> String {
        const ONSETS: [&str; 16] = ["b", "d", "f", "g", "k", "l", "m", "n", "p", "r", "s", "t", "v", "z", "tr", "kl"];
        const VOWELS: [&str; 5] = ["a", "i", "o", "u", "e"];
        const CODAS: [&str; 8] = ["", "", "", "l", "r", "m", "s", "t"];
        loop {
            let mut word = String::new();
            for left in (0..syllables).rev() {
                // See `Suffix::spelling` for why no word ends in a syllable with an `e`.
                let vowels = if left == 0 { &VOWELS[..4] } else { &VOWELS };
                word += self.draw.pick(&ONSETS);
                word += self.draw.pick(vowels);
                word += self.draw.pick(&CODAS);
            }
            if self.taken.insert(word.clone()) {
                self.words.push(word.clone());
                return word;
            }
        }
    }

    /// One word in six of ten cases, two in three, three in one; in turn, so that the vocabulary's size is no matter
    /// of chance.
    fn synonyms(&mut self, syllables: usize) -> Synonyms {
        const FORMS: [usize; 10] = [1, 2, 1, 1, 3, 1, 2, 1, 1, 2];
        let forms = FORMS[self.meanings % FORMS.len()];
        self.meanings += 1;
        (0..forms).map(|_| self.coin(syllables)).collect()
    }

    /// `n` different kinds from `from` on.
    fn some_kinds(&mut self, n: usize, from: usize) -> Vec<Kind> {
        let mut kinds = Vec::with_capacity(n);
        while kinds.len() < n {
            let kind = Kind(from + self.draw.below(KINDS - from));
            if !kinds.contains(&kind) {
                kinds.push(kind);
            }
        }
        kinds
    }

    /// People do everything that has an object, and half of it animals do too.
    fn verb(&mut self, transitive: bool) -> VerbEntry {
        let forms = self.synonyms(2);
        let mut subjects = vec![Kind(0)];
        if transitive {
            if self.draw.percent(50) {
                subjects.push(Kind(1));
            }
            let objects = self.some_kinds(2, 0);
            return VerbEntry { forms, subjects, objects };
        }
        subjects.extend(self.some_kinds(3, 1));
        VerbEntry { forms, subjects, objects: Vec::new() }
    }

    /// Everything can be praised and blamed; a plain quality belongs to three kinds of things.
    fn adjective(&mut self, polarity: Polarity) -> AdjectiveEntry {
        let forms = self.synonyms(2);
        let kinds = match polarity {
            Polarity::Plain => self.some_kinds(3, 0),
            Polarity::Good | Polarity::Bad => (0..KINDS).map(Kind).collect(),
        };
        AdjectiveEntry { forms, polarity, kinds }
    }
}

//! The words of the invented language: their forms, and the words that they combine with.

use std::collections::HashSet;

use crate::invented::draw::Draw;
use crate::invented::grammar::{Adjective, Gender, KINDS, Kind, Noun, Polarity, Relation, THEMES, Tense, Theme, Verb};

const NOUNS_PER_KIND: usize = 40;
const ACTIONS: usize = 90;
const DOINGS: usize = 30;
const PLAIN_ADJECTIVES: usize = 60;
const POLAR_ADJECTIVES: usize = 30;
const ADVERBS_PER_TENSE: usize = 3;
const DEGREES: usize = 4;

/// Synonyms, interchangeable in all sentences; the first is the most frequent.
pub type Synonyms = Vec<String>;

/// The properties of a noun.
#[derive(Clone, Debug)]
pub struct NounEntry {
    /// The noun's synonyms.
    pub forms: Synonyms,
    /// The gender, which the spelling does not show.
    pub gender: Gender,
    /// The kind of thing.
    pub kind: Kind,
}

/// The properties of a verb.
#[derive(Clone, Debug)]
pub struct VerbEntry {
    /// The verb's synonyms.
    pub forms: Synonyms,
    /// The kinds of possible subjects.
    pub subjects: Vec<Kind>,
    /// The kinds of possible objects; empty for an intransitive verb.
    pub objects: Vec<Kind>,
}

/// The properties of an adjective.
#[derive(Clone, Debug)]
pub struct AdjectiveEntry {
    /// The adjective's synonyms.
    pub forms: Synonyms,
    /// Praise, blame or neither.
    pub polarity: Polarity,
    /// The kinds of things that the adjective applies to.
    pub kinds: Vec<Kind>,
}

/// Function words, without synonyms.
#[derive(Clone, Debug)]
pub struct Particles {
    /// "the", by gender.
    pub definite: [String; 2],
    /// "a", by gender.
    pub indefinite: [String; 2],
    /// "she", "he" and "they".
    pub pronouns: [String; 3],
    /// "in", before a place.
    pub at: String,
    /// "with", before a companion.
    pub with: String,
    /// "by", before the subject of a passive sentence.
    pub by: String,
    /// The passive particle, before a verb.
    pub passive: String,
    /// "not".
    pub not: String,
    /// The past particle, before a verb.
    pub past: String,
    /// The future particle, before a verb.
    pub future: String,
    /// "is", which agrees in number like other verbs.
    pub be: String,
    /// "a sort of".
    pub sort: String,
}

/// All words of the language.
#[derive(Clone, Debug)]
pub struct Lexicon {
    /// Nouns, ordered by kind.
    pub nouns: Vec<NounEntry>,
    /// Transitive verbs, then intransitive verbs, then the relations in the order of [`Relation::ALL`].
    pub verbs: Vec<VerbEntry>,
    /// Adjectives: plain, good, bad.
    pub adjectives: Vec<AdjectiveEntry>,
    /// The name of each kind.
    pub kinds: Vec<NounEntry>,
    /// Words of degree.
    pub degrees: Vec<String>,
    /// Adverbs of past, present and future.
    pub adverbs: [Vec<String>; 3],
    /// Function words.
    pub particles: Particles,
    /// Unique names for the people and places of the world.
    pub names: Vec<String>,
    /// All words, each once, in the order of their generation.
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
        // The facts of the world, not the kinds, determine the subjects and objects of a relation.
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

    /// The theme of a noun. Each theme has every tenth noun of a kind, and so frequent and rare ones.
    pub fn theme(&self, noun: Noun) -> Theme {
        Theme(noun.0 % THEMES)
    }

    /// Whether a verb belongs to a theme.
    pub fn suits(&self, verb: Verb, theme: Theme) -> bool {
        verb.0 % THEMES == theme.0
    }

    /// Whether an adjective belongs to a theme; praise and blame belong to all themes.
    pub fn colours(&self, adjective: Adjective, theme: Theme) -> bool {
        self.adjectives[adjective.0].polarity != Polarity::Plain || adjective.0 % THEMES == theme.0
    }

    /// The nouns of a kind, most frequent first.
    pub fn nouns_of(&self, kind: Kind) -> impl Iterator<Item = Noun> {
        let start = kind.0 * NOUNS_PER_KIND;
        (start..start + NOUNS_PER_KIND).map(Noun)
    }

    /// The transitive or intransitive verbs with subjects of a kind, most frequent first.
    pub fn verbs_of(&self, subject: Kind, transitive: bool) -> Vec<Verb> {
        let range = if transitive { 0..ACTIONS } else { ACTIONS..ACTIONS + DOINGS };
        range.filter(|&v| self.verbs[v].subjects.contains(&subject)).map(Verb).collect()
    }

    /// The adjectives of a polarity that apply to a kind, most frequent first.
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
    pub fn relation(&self, relation: Relation) -> Verb {
        Verb(ACTIONS + DOINGS + relation as usize)
    }

    /// The adverbs of a tense.
    pub fn adverbs_of(&self, tense: Tense) -> &[String] {
        &self.adverbs[tense as usize]
    }
}

/// A generator of words.
struct Coiner<'a> {
    draw: &'a mut Draw,
    taken: HashSet<String>,
    words: Vec<String>,
    /// Number of calls of [`Coiner::synonyms`] so far.
    meanings: usize,
}

impl Coiner<'_> {
    /// A new word with this number of syllables.
    fn coin(&mut self, syllables: usize) -> String {
        const ONSETS: [&str; 16] = ["b", "d", "f", "g", "k", "l", "m", "n", "p", "r", "s", "t", "v", "z", "tr", "kl"];
        const VOWELS: [&str; 5] = ["a", "i", "o", "u", "e"];
        const CODAS: [&str; 8] = ["", "", "", "l", "r", "m", "s", "t"];
        loop {
            let mut word = String::new();
            for left in (0..syllables).rev() {
                // `Suffix::spelling` relies on words whose last syllable has no `e`.
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

    /// New words for one meaning: one word in six of ten calls, two in three, three in one. The numbers follow a fixed
    /// cycle, so the size of the vocabulary does not depend on the seed.
    fn synonyms(&mut self, syllables: usize) -> Synonyms {
        const FORMS: [usize; 10] = [1, 2, 1, 1, 3, 1, 2, 1, 1, 2];
        let forms = FORMS[self.meanings % FORMS.len()];
        self.meanings += 1;
        (0..forms).map(|_| self.coin(syllables)).collect()
    }

    /// `n` different kinds, none below `from`.
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

    /// A new verb. People are subjects of all verbs; animals are subjects of half of the transitive ones.
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

    /// A new adjective. Praise and blame apply to all kinds; a plain adjective applies to three.
    fn adjective(&mut self, polarity: Polarity) -> AdjectiveEntry {
        let forms = self.synonyms(2);
        let kinds = match polarity {
            Polarity::Plain => self.some_kinds(3, 0),
            Polarity::Good | Polarity::Bad => (0..KINDS).map(Kind).collect(),
        };
        AdjectiveEntry { forms, polarity, kinds }
    }
}

//! An invented language about an invented world: text with structure, made on the spot.
//!
//! It lets everything run and be tested with nothing downloaded. A small encoder learns it in a minute, because there
//! is much to learn and it is regular: agreement in number, gender and tense, some of it across other words; verbs
//! that go with certain kinds of things; themes that bring their words along; words that mean the same; praise and blame that follow a paragraph's mood;
//! pronouns; and a fixed world of facts that texts keep alluding to. None of it shows in the spelling.
//!
//! Meaning ([`Sentence`]) is apart from surface ([`realise`]), so that tasks can be made from the same world: a
//! sentence with a [`Slip`] is ungrammatical, two realisations of one meaning are paraphrases, a
//! [`Fact`] entails its rewordings, a [`Role`] tells where the answer to a question stands.
//!
//! Words come from a [`World`]'s seed; which sentences are made of them, from another seed, a [`Split`] and a
//! paragraph's number.

mod change;
mod draw;
mod facts;
mod lexicon;
mod meaning;
mod passage;
mod questions;
mod realise;
mod tasks;

use std::fs;
use std::io::{BufWriter, Write};
use std::path::Path;

pub use draw::Draw;
pub use facts::{PersonEntry, PlaceEntry};
pub use lexicon::{
    Adjective, AdjectiveEntry, Degree, Gender, KINDS, Kind, Lexicon, Noun, NounEntry, Particles, Polarity, Relation,
    Suffix, Synonyms, THEMES, Tense, Theme, Verb, VerbEntry,
};
pub use meaning::{Entity, Fact, NounPhrase, Person, Predicate, Region, Sentence, Town};
pub use realise::{Role, Slip, Style, Word, realise, text};
pub use tasks::TaskSizes;

use crate::{Error, Result};

/// Sites of [`Draw`]: what a sequence of choices is for.
const LEXICON: u32 = 0;
const FACTS: u32 = 1;
/// One for each split.
const PASSAGE: u32 = 2;
/// One for each task and split.
const TASKS: u32 = 8;
/// One for each split.
const QUESTIONS: u32 = 32;

const SPECIAL_TOKENS: [&str; 5] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];

/// Texts of different splits have no paragraph in common but by chance. The world's facts are the same in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Split {
    /// To train on.
    Train,
    /// To choose by.
    Valid,
    /// To report.
    Test,
}

/// A language and the world it speaks of.
#[derive(Clone, Debug)]
pub struct World {
    lexicon: Lexicon,
    people: Vec<PersonEntry>,
    towns: Vec<PlaceEntry>,
    regions: Vec<PlaceEntry>,
}

impl World {
    /// The world of a seed. The same seed gives the same words, people and facts on every machine.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let names = facts::PEOPLE + facts::TOWNS + facts::REGIONS;
        let lexicon = Lexicon::new(&mut Draw::new(seed, LEXICON, 0), names);
        let draw = &mut Draw::new(seed, FACTS, 0);
        Self {
            people: facts::people(&lexicon, draw),
            towns: facts::towns(&lexicon, draw),
            regions: facts::regions(&lexicon, draw),
            lexicon,
        }
    }

    /// The words.
    #[must_use]
    pub fn lexicon(&self) -> &Lexicon {
        &self.lexicon
    }

    /// The people; the first are spoken of most.
    #[must_use]
    pub fn people(&self) -> &[PersonEntry] {
        &self.people
    }

    /// The towns; the first are spoken of most.
    #[must_use]
    pub fn towns(&self) -> &[PlaceEntry] {
        &self.towns
    }

    /// The regions.
    #[must_use]
    pub fn regions(&self) -> &[PlaceEntry] {
        &self.regions
    }

    /// What is so of a person; what is told most, first.
    #[must_use]
    pub fn facts_of(&self, person: Person) -> [Fact; 5] {
        self.people[person.0].facts(person)
    }

    /// In which region a town lies.
    #[must_use]
    pub fn region_fact(&self, town: Town) -> Fact {
        Fact {
            subject: Entity::Town(town),
            relation: Relation::LiesIn,
            value: Entity::Region(self.towns[town.0].region),
        }
    }

    /// What an entity's determiners, adjectives and pronouns agree in.
    #[must_use]
    pub fn gender(&self, entity: Entity) -> Gender {
        match entity {
            Entity::Thing(Noun(i)) => self.lexicon.nouns[i].gender,
            Entity::Person(Person(i)) => self.people[i].gender,
            Entity::Town(Town(i)) => self.towns[i].gender,
            Entity::Region(Region(i)) => self.regions[i].gender,
        }
    }

    /// What an entity is called: its name, or its commonest noun.
    #[must_use]
    pub fn name(&self, entity: Entity) -> &str {
        match entity {
            Entity::Thing(Noun(i)) => &self.lexicon.nouns[i].forms[0],
            Entity::Person(Person(i)) => &self.people[i].name,
            Entity::Town(Town(i)) => &self.towns[i].name,
            Entity::Region(Region(i)) => &self.regions[i].name,
        }
    }

    /// The WordPiece vocabulary, 1,002 pieces whatever the seed: special tokens, the full stop, the endings, the words.
    #[must_use]
    pub fn vocab(&self) -> Vec<String> {
        let special = SPECIAL_TOKENS.iter().map(ToString::to_string);
        let endings = Suffix::ALL.map(|s| format!("##{}", s.spelling()));
        special.chain([".".to_owned()]).chain(endings).chain(self.lexicon.words.iter().cloned()).collect()
    }

    /// Writes `vocab.txt` and `tokenizer_config.json` into `dir`, which must exist: a tokenizer that
    /// [`Tokenizer`](crate::Tokenizer) and `transformers`' `BertTokenizer` load.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn write_tokenizer(&self, dir: &Path) -> Result<()> {
        let mut vocab = self.vocab().join("\n");
        vocab.push('\n');
        let config = serde_json::json!({
            "tokenizer_class": "BertTokenizer",
            "do_lower_case": true,
            "pad_token": "[PAD]",
            "unk_token": "[UNK]",
            "cls_token": "[CLS]",
            "sep_token": "[SEP]",
            "mask_token": "[MASK]",
        });
        for (name, content) in [("vocab.txt", vocab), ("tokenizer_config.json", format!("{config:#}\n"))] {
            let path = dir.join(name);
            fs::write(&path, content).map_err(write_error(&path))?;
        }
        Ok(())
    }

    /// The meanings of a paragraph's sentences and how each is put, without realising them.
    #[must_use]
    pub fn passage(&self, seed: u64, split: Split, index: u64) -> Vec<(Sentence, Style)> {
        let draw = &mut passage_draw(seed, split, index);
        self.draw_passage(draw)
    }

    fn draw_passage(&self, draw: &mut Draw) -> Vec<(Sentence, Style)> {
        let sentences = passage::passage(self, draw);
        sentences.into_iter().map(|sentence| (sentence, Style::random(draw))).collect()
    }

    /// A paragraph's text, and its length in word pieces.
    fn paragraph(&self, seed: u64, split: Split, index: u64) -> (String, usize) {
        let draw = &mut passage_draw(seed, split, index);
        let mut paragraph = String::new();
        let mut pieces = 0;
        for (sentence, style) in self.draw_passage(draw) {
            let words = realise(self, &sentence, style, draw);
            let endings = words.iter().filter(|w| w.suffix.is_some()).count();
            pieces += words.len() + endings + 1;
            if !paragraph.is_empty() {
                paragraph.push(' ');
            }
            paragraph += &text(&words);
        }
        (paragraph, pieces)
    }

    /// The first `n` paragraphs of a split, without line ends; each is two to six sentences.
    #[must_use]
    pub fn paragraphs(&self, n: usize, seed: u64, split: Split) -> Vec<String> {
        (0..n as u64).map(|i| self.paragraph(seed, split, i).0).collect()
    }

    /// Writes paragraphs, a line each, until they have at least `tokens` word pieces, and returns how many they have.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn write_corpus(&self, path: &Path, tokens: usize, seed: u64, split: Split) -> Result<usize> {
        let file = fs::File::create(path).map_err(write_error(path))?;
        let mut file = BufWriter::new(file);
        let mut written = 0;
        let mut index = 0;
        while written < tokens {
            let (paragraph, pieces) = self.paragraph(seed, split, index);
            writeln!(file, "{paragraph}").map_err(write_error(path))?;
            written += pieces;
            index += 1;
        }
        file.flush().map_err(write_error(path))?;
        Ok(written)
    }
}

fn passage_draw(seed: u64, split: Split, index: u64) -> Draw {
    Draw::new(seed, PASSAGE + split as u32, index)
}

fn write_error(path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.to_owned();
    |source| Error::Io { action: "write", path, source }
}

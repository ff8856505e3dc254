//! An invented language about an invented world: generated text with a learnable structure.
//!
//! The language lets demos and tests run without any download. A small encoder learns it in about a minute, because its
//! rules are regular: agreement in number, gender and tense, also across other words; verbs that take certain kinds of
//! things; themes with their own vocabulary; synonyms; praise and blame that follow the mood of a paragraph; pronouns; and
//! a fixed world of facts that the texts mention again and again. The spelling of a word reveals none of these rules.
//!
//! Meaning ([`Sentence`]) is separate from wording ([`realise`]), so tasks come from the same world: a sentence with a
//! [`Slip`] is ungrammatical, two wordings of one meaning are paraphrases, a [`Fact`] entails its rewordings, and a
//! [`Role`] marks the answer to a question.
//!
//! The seed of a [`World`] determines its words and facts. A paragraph is a function of the world, a second seed, a
//! [`Split`] and the paragraph's number.
//!
//! | file | content |
//! |---|---|
//! | `draw` | deterministic random choices |
//! | `grammar`, `lexicon` | grammatical categories, and the words of the language |
//! | `meaning`, `facts`, `world` | meanings of sentences; people, places and facts; the world |
//! | `paragraph`, `change`, `realise` | meanings of a paragraph, edits of a meaning, and its wording |
//! | `corpus`, `tasks`, `questions` | files: text and tokenizer, tasks, span questions |

mod change;
mod corpus;
mod draw;
mod facts;
mod grammar;
mod lexicon;
mod meaning;
mod paragraph;
mod questions;
mod realise;
mod site;
mod split;
mod tasks;
mod world;

pub use draw::Draw;
pub use facts::{PersonEntry, PlaceEntry};
pub use grammar::{
    Adjective, Degree, Gender, KINDS, Kind, Noun, Polarity, Relation, Suffix, THEMES, Tense, Theme, Verb,
};
pub use lexicon::{AdjectiveEntry, Lexicon, NounEntry, Particles, Synonyms, VerbEntry};
pub use meaning::{Entity, Fact, NounPhrase, Person, Predicate, Region, Sentence, Town};
pub use realise::{Role, Slip, Style, Word, realise, text};
pub use split::Split;
pub use tasks::TaskSizes;
pub use world::World;

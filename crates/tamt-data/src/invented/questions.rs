//! Span questions about passages, in SQuAD's JSON.
//!
//! A question is a sentence of the passage in other words, with one phrase left out: the subject, the object or the
//! place. The answer is that phrase, as the passage has it. The language has no question words, and needs none: what
//! is asked for is what is missing.

use serde_json::{Value, json};

use super::change::explicit;
use super::draw::Draw;
use super::meaning::{Predicate, Sentence};
use super::realise::{Role, Style, Word, realise, text};
use super::tasks::of_split;
use super::{Split, World};

/// The most sentences in a passage: with its question it nearly always fits into 64 tokens.
const SENTENCES: usize = 3;

/// A data set of `passages` passages, with up to two questions about each.
pub(super) fn json(world: &World, site: u32, seed: u64, split: Split, passages: usize) -> String {
    let paragraph = |i| {
        let draw = &mut Draw::new(seed, site, i as u64);
        let (context, told) = of_split(split, || passage(world, draw), |(context, _)| context.clone());
        let qas = questions(world, i, &told, draw);
        json!({"context": context, "qas": qas})
    };
    let paragraphs: Vec<Value> = (0..passages).map(paragraph).collect();
    let data = json!({"version": "1.1", "data": [{"title": "world", "paragraphs": paragraphs}]});
    format!("{data}\n")
}

/// A sentence as the passage has it.
struct Told {
    sentence: Sentence,
    words: Vec<Word>,
    /// Where in the passage it starts.
    start: usize,
}

fn passage(world: &World, draw: &mut Draw) -> (String, Vec<Told>) {
    let mut context = String::new();
    let mut told = Vec::new();
    for (sentence, style) in world.draw_passage(draw).into_iter().take(SENTENCES) {
        let words = realise(world, &sentence, style, draw);
        if !context.is_empty() {
            context.push(' ');
        }
        let start = context.len();
        context += &text(&words);
        told.push(Told { sentence, words, start });
    }
    (context, told)
}

/// One or two, with their answers.
fn questions(world: &World, index: usize, told: &[Told], draw: &mut Draw) -> Vec<Value> {
    let mut asked: Vec<(String, Vec<Value>)> = Vec::new();
    for _ in 0..2 {
        let about = &told[draw.below(told.len())].sentence;
        let role = draw.pick(&askable(about));
        let question = question(world, about, role, draw);
        if asked.iter().all(|(earlier, _)| *earlier != question) {
            asked.push((question, answers(world, told, about, role)));
        }
    }
    let qa = |(i, (question, answers))| json!({"id": format!("{index}-{i}"), "question": question, "answers": answers});
    asked.into_iter().enumerate().map(qa).collect()
}

/// The phrases that can be left out: always the subject.
fn askable(sentence: &Sentence) -> Vec<Role> {
    let mut roles = vec![Role::Subject];
    roles.extend(sentence.object().map(|_| Role::Object));
    roles.extend(sentence.place.map(|_| Role::Place));
    roles
}

fn question(world: &World, about: &Sentence, role: Role, draw: &mut Draw) -> String {
    let style = Style { passive: false, ..Style::random(draw) };
    let mut words = realise(world, &explicit(about), style, draw);
    // Without the passive, the only link is the one before the place.
    words.retain(|word| word.role != role && !(role == Role::Place && word.role == Role::Link));
    text(&words)
}

/// The phrase in each sentence that answers the question; the passage may say the same again, or the same of another.
fn answers(world: &World, told: &[Told], about: &Sentence, role: Role) -> Vec<Value> {
    let answering = told.iter().filter(|told| answers_too(world, &told.sentence, about, role));
    answering
        .map(|Told { words, start, .. }| {
            let from = words.iter().position(|word| word.role == role).unwrap_or(words.len());
            let phrase: Vec<Word> = words[from..].iter().take_while(|word| word.role == role).cloned().collect();
            let before = text(&words[..from]).len();
            // The full stop is no part of it; before a first word there is no space.
            let answer = text(&phrase);
            let at = if from == 0 { *start } else { start + before };
            json!({"text": answer.trim_end_matches('.'), "answer_start": at})
        })
        .collect()
}

/// Whether `told` says the same as `about` but for the phrase in that role. Of a subject left out, endings tell number and
/// gender.
fn answers_too(world: &World, told: &Sentence, about: &Sentence, role: Role) -> bool {
    let (mut told, about) = (explicit(told), explicit(about));
    let shown = |s: &Sentence| (s.subject.plural, world.gender(s.subject.entity));
    match role {
        Role::Subject if shown(&told) == shown(&about) => told.subject = about.subject.clone(),
        Role::Object => {
            if let (Predicate::Act { object: Some(object), .. }, Some(asked)) = (&mut told.predicate, about.object()) {
                *object = asked.clone();
            }
        }
        Role::Place if told.place.is_some() => told.place = about.place,
        Role::Subject | Role::Predicate | Role::Place | Role::Time | Role::Link => {}
    }
    told == about
}

//! Span questions about passages, in SQuAD's JSON.
//!
//! A question is a sentence of the passage in other words, with one phrase left out: the subject, the object or the
//! place. The answer is that phrase, as the passage has it. The language has no question words, and needs none: what
//! is asked for is what is missing.

use serde_json::{Value, json};

use super::World;
use super::change::explicit;
use super::draw::Draw;
use super::meaning::Sentence;
use super::realise::{Role, Style, Word, realise, text};

/// A data set of `passages` passages, with up to two questions about each.
pub(super) fn json(world: &World, site: u32, seed: u64, passages: usize) -> String {
    let paragraphs: Vec<Value> =
        (0..passages).map(|i| paragraph(world, i, &mut Draw::new(seed, site, i as u64))).collect();
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

fn paragraph(world: &World, index: usize, draw: &mut Draw) -> Value {
    let mut context = String::new();
    let mut told = Vec::new();
    for (sentence, style) in world.draw_passage(draw) {
        let words = realise(world, &sentence, style, draw);
        if !context.is_empty() {
            context.push(' ');
        }
        told.push(Told { sentence, start: context.len(), words: words.clone() });
        context += &text(&words);
    }
    let mut questions = Vec::new();
    for _ in 0..2 {
        let about = &told[draw.below(told.len())].sentence;
        let role = draw.pick(&askable(about));
        let asked = question(world, about, role, draw);
        if questions.iter().all(|(earlier, _)| *earlier != asked) {
            questions.push((asked, answers(&told, about, role)));
        }
    }
    let qas: Vec<Value> = questions
        .into_iter()
        .enumerate()
        .map(|(i, (question, answers))| json!({"id": format!("{index}-{i}"), "question": question, "answers": answers}))
        .collect();
    json!({"context": context, "qas": qas})
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

/// The phrase in each sentence that says the same; the passage may say it again in other words.
fn answers(told: &[Told], about: &Sentence, role: Role) -> Vec<Value> {
    let same = told.iter().filter(|other| other.sentence == *about);
    same.map(|Told { words, start, .. }| {
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

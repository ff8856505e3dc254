//! Span questions about paragraphs, in `SQuAD`'s JSON.
//!
//! A question is a sentence of the context in other words, without its subject, its object or its place. The answer is the
//! omitted phrase, in the wording of the context. The language needs no question words: the question asks for the missing
//! phrase.

use serde_json::{Value, json};

use crate::invented::change::explicit;
use crate::invented::draw::Draw;
use crate::invented::meaning::{Predicate, Sentence};
use crate::invented::realise::{Role, Style, Word, realise, text};
use crate::invented::split::Split;
use crate::invented::world::World;

/// Maximum number of sentences of a context: context and question nearly always fit into 64 tokens.
const SENTENCES: usize = 3;

/// A dataset of `contexts` contexts, with one or two questions about each.
pub(super) fn json(world: &World, site: u32, seed: u64, split: Split, contexts: usize) -> String {
    let paragraph = |i| {
        let draw = &mut Draw::new(seed, site, i as u64);
        let (text, sentences) = split.first(|| context(world, draw), |(text, _)| text.clone());
        let qas = questions(world, i, &sentences, draw);
        json!({"context": text, "qas": qas})
    };
    let paragraphs: Vec<Value> = (0..contexts).map(paragraph).collect();
    let data = json!({"version": "1.1", "data": [{"title": "world", "paragraphs": paragraphs}]});
    format!("{data}\n")
}

/// A sentence of a context.
struct ContextSentence {
    meaning: Sentence,
    words: Vec<Word>,
    /// The byte of the context where the sentence starts.
    start: usize,
}

/// The text of a context, and its sentences.
fn context(world: &World, draw: &mut Draw) -> (String, Vec<ContextSentence>) {
    let mut context = String::new();
    let mut sentences = Vec::new();
    for (meaning, style) in world.draw_styled_sentences(draw).into_iter().take(SENTENCES) {
        let words = realise(world, &meaning, style, draw);
        if !context.is_empty() {
            context.push(' ');
        }
        let start = context.len();
        context += &text(&words);
        sentences.push(ContextSentence { meaning, words, start });
    }
    (context, sentences)
}

/// One or two questions about context number `index`, with their answers.
fn questions(world: &World, index: usize, sentences: &[ContextSentence], draw: &mut Draw) -> Vec<Value> {
    let mut asked: Vec<(String, Vec<Value>)> = Vec::new();
    for _ in 0..2 {
        let about = &sentences[draw.below(sentences.len())].meaning;
        let role = draw.pick(&askable(about));
        let question = question(world, about, role, draw);
        if asked.iter().all(|(earlier, _)| *earlier != question) {
            asked.push((question, answers(world, sentences, about, role)));
        }
    }
    let qa = |(i, (question, answers))| json!({"id": format!("{index}-{i}"), "question": question, "answers": answers});
    asked.into_iter().enumerate().map(qa).collect()
}

/// The roles that a question can omit: the subject, and the object and the place of a sentence that has them.
fn askable(sentence: &Sentence) -> Vec<Role> {
    let mut roles = vec![Role::Subject];
    roles.extend(sentence.object().map(|_| Role::Object));
    roles.extend(sentence.place.map(|_| Role::Place));
    roles
}

fn question(world: &World, about: &Sentence, role: Role, draw: &mut Draw) -> String {
    let style = Style { passive: false, ..Style::random(draw) };
    let mut words = realise(world, &explicit(about), style, draw);
    // Without a passive, the only preposition is the one before the place.
    words.retain(|word| word.role != role && !(role == Role::Place && word.role == Role::Link));
    text(&words)
}

/// The answers from all sentences of the context that match the question; several sentences may match.
fn answers(world: &World, sentences: &[ContextSentence], about: &Sentence, role: Role) -> Vec<Value> {
    let answering = sentences.iter().filter(|sentence| is_answer(world, &sentence.meaning, about, role));
    answering
        .map(|ContextSentence { words, start, .. }| {
            let from = words.iter().position(|word| word.role == role).unwrap_or(words.len());
            let phrase: Vec<Word> = words[from..].iter().take_while(|word| word.role == role).cloned().collect();
            let before = text(&words[..from]).len();
            // `text` ends in a full stop. The full stop of `words[..from]` stands for the space before the phrase; a
            // phrase at the start of the sentence has no space before it.
            let answer = text(&phrase);
            let at = if from == 0 { *start } else { start + before };
            json!({"text": answer.trim_end_matches('.'), "answer_start": at})
        })
        .collect()
}

/// Whether `stated` equals `about` except for the phrase of a role. The endings in a question reveal the number and the
/// gender of an omitted subject, so these must agree.
fn is_answer(world: &World, stated: &Sentence, about: &Sentence, role: Role) -> bool {
    let (mut stated, about) = (explicit(stated), explicit(about));
    let shown = |s: &Sentence| (s.subject.plural, world.gender(s.subject.entity));
    match role {
        Role::Subject if shown(&stated) == shown(&about) => stated.subject = about.subject.clone(),
        Role::Object => {
            if let (Predicate::Act { object: Some(object), .. }, Some(asked)) = (&mut stated.predicate, about.object())
            {
                *object = asked.clone();
            }
        }
        Role::Place if stated.place.is_some() => stated.place = about.place,
        Role::Subject | Role::Predicate | Role::Place | Role::Time | Role::Link => {}
    }
    stated == about
}

//! The invented language through its tokenizer and its meanings.

#![allow(clippy::print_stdout, reason = "measurements and skips are printed")]

use std::collections::{HashMap, HashSet};

use tamt_data::invented::{
    Draw, Entity, Polarity, Predicate, Relation, Role, Sentence, Slip, Split, Style, Suffix, Word, World, realise, text,
};
use tamt_data::{Corpus, ReadOptions, Tokenizer};

const SEED: u64 = 11;

fn tokenizer(world: &World) -> Tokenizer {
    let dir = tempfile::tempdir().unwrap();
    world.write_tokenizer(dir.path()).unwrap();
    Tokenizer::from_dir(dir.path()).unwrap()
}

/// Sentences of many paragraphs.
fn sentences(world: &World) -> Vec<Sentence> {
    (0..400).flat_map(|i| world.styled_sentences(SEED, Split::Train, i)).map(|(sentence, _)| sentence).collect()
}

fn realised(world: &World, sentence: &Sentence, style: Style, index: u64) -> Vec<Word> {
    realise(world, sentence, style, &mut Draw::new(3, 99, index))
}

#[test]
fn every_seeds_vocabulary_has_the_same_number_of_pieces_each_once() {
    for seed in 0..20 {
        let vocab = World::new(seed).vocab();
        assert_eq!(vocab.len(), 1002);
        assert_eq!(vocab.iter().collect::<HashSet<_>>().len(), vocab.len());
    }
}

#[test]
fn seeds_make_worlds_and_texts_and_the_same_seed_makes_the_same() {
    let world = World::new(1);
    assert_eq!(world.vocab(), World::new(1).vocab());
    assert_ne!(world.vocab(), World::new(2).vocab());
    let some = |seed, split| world.paragraphs(50, seed, split);
    assert_eq!(some(1, Split::Train), World::new(1).paragraphs(50, 1, Split::Train));
    assert_ne!(some(1, Split::Train), some(2, Split::Train));
    // A paragraph does not depend on the number of paragraphs.
    assert_eq!(some(1, Split::Train)[..20], world.paragraphs(20, 1, Split::Train));
}

#[test]
fn splits_share_no_paragraph_of_some_length() {
    let world = World::new(SEED);
    let long = |split| -> HashSet<String> {
        let all = world.paragraphs(2000, 5, split).into_iter();
        all.filter(|p| p.split(' ').count() > 20).collect()
    };
    let train = long(Split::Train);
    assert!(train.len() > 500);
    assert!(train.is_disjoint(&long(Split::Valid)));
    assert!(train.is_disjoint(&long(Split::Test)));
}

#[test]
fn every_word_is_tokenized_into_its_stem_and_its_ending() {
    let world = World::new(SEED);
    let tokenizer = tokenizer(&world);
    for (i, sentence) in sentences(&world).iter().enumerate() {
        let words = realised(&world, sentence, Style::default(), i as u64);
        let pieces: Vec<String> = words
            .iter()
            .flat_map(|w| {
                let ending = w.suffix.map(|s| format!("##{}", s.spelling()));
                std::iter::once(w.stem.clone()).chain(ending)
            })
            .chain([".".to_owned()])
            .collect();
        let ids = tokenizer.ids(&text(&words)).unwrap();
        let tokens: Vec<String> = ids.iter().map(|&id| tokenizer.token(id).unwrap()).collect();
        assert_eq!(tokens, pieces, "{}", text(&words));
    }
}

#[test]
fn every_stem_takes_every_ending_apart_from_it_in_every_world() {
    for seed in 0..5 {
        let world = World::new(seed);
        let tokenizer = tokenizer(&world);
        for stem in &world.lexicon().words {
            for suffix in Suffix::ALL {
                let ids = tokenizer.ids(&format!("{stem}{}", suffix.spelling())).unwrap();
                let want = [stem.clone(), format!("##{}", suffix.spelling())];
                assert_eq!(ids, want.map(|piece| tokenizer.id(&piece).unwrap()), "{stem}");
            }
        }
    }
}

#[test]
fn a_written_corpus_has_the_tokens_it_says_it_has() {
    let world = World::new(SEED);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("corpus.txt");
    let written = world.write_corpus(&path, 5000, 2, Split::Valid).unwrap();
    assert!((5000..5200).contains(&written));
    let corpus = Corpus::read(&[path], &tokenizer(&world), ReadOptions::default()).unwrap();
    assert_eq!(corpus.tokens.len(), written);
    assert!(corpus.tokens.iter().all(|&id| id >= 5), "no special and no unknown tokens");
    let missing = dir.path().join("missing/corpus.txt");
    assert!(world.write_corpus(&missing, 10, 2, Split::Valid).is_err());
}

#[test]
fn paragraphs_are_two_to_six_sentences_on_one_line() {
    for paragraph in World::new(SEED).paragraphs(500, 1, Split::Train) {
        assert!((2..=6).contains(&paragraph.matches('.').count()), "{paragraph}");
        assert!(!paragraph.contains('\n'));
    }
}

#[test]
fn paragraphs_state_only_facts_of_the_world() {
    let world = World::new(SEED);
    let relations: HashMap<_, _> = Relation::ALL.map(|r| (world.lexicon().relation(r), r)).into_iter().collect();
    let mut stated = HashSet::new();
    for sentence in sentences(&world) {
        let Predicate::Act { verb, object: Some(object) } = &sentence.predicate else {
            continue;
        };
        let Some(&relation) = relations.get(verb) else {
            continue;
        };
        let fact = match sentence.subject.entity {
            Entity::Person(person) => *world.facts_of(person).iter().find(|f| f.relation == relation).unwrap(),
            Entity::Town(town) => world.region_fact(town),
            other => panic!("no facts about {other:?}"),
        };
        assert!(!sentence.negated);
        assert_eq!(fact.relation, relation);
        assert_eq!(fact.value, object.entity);
        stated.insert(fact);
    }
    assert!(stated.len() > 100, "{} facts", stated.len());
}

#[test]
fn praise_and_blame_do_not_mix_in_a_passage() {
    let world = World::new(SEED);
    let mut moods = HashMap::new();
    for i in 0..500 {
        let mut mood = None;
        for (sentence, _) in world.styled_sentences(SEED, Split::Train, i) {
            let Predicate::Quality { adjective, .. } = sentence.predicate else {
                continue;
            };
            let polarity = world.lexicon().adjectives[adjective.0].polarity;
            let meant = match (polarity, sentence.negated) {
                (Polarity::Good, false) | (Polarity::Bad, true) => Polarity::Good,
                (Polarity::Bad, false) | (Polarity::Good, true) => Polarity::Bad,
                (Polarity::Plain, _) => panic!("a plain quality has no mood"),
            };
            assert_eq!(*mood.get_or_insert(meant), meant);
        }
        *moods.entry(mood).or_insert(0) += 1;
    }
    assert!(moods[&Some(Polarity::Good)] > 100 && moods[&Some(Polarity::Bad)] > 100);
}

#[test]
fn a_slip_changes_only_the_words_of_its_rule() {
    let world = World::new(SEED);
    let mut seen = HashMap::new();
    for (i, sentence) in sentences(&world).iter().enumerate() {
        let right = realised(&world, sentence, Style::default(), i as u64);
        for slip in [Slip::Number, Slip::Gender, Slip::Tense, Slip::Order] {
            let style = Style { slip: Some(slip), ..Style::default() };
            let wrong = realised(&world, sentence, style, i as u64);
            if !sentence.admits(slip) {
                continue;
            }
            *seen.entry(slip).or_insert(0) += 1;
            assert_ne!(right, wrong, "{slip:?}: {}", text(&right));
            let stems = |words: &[Word]| words.iter().map(|w| w.stem.clone()).collect::<Vec<_>>();
            let sorted = |words: &[Word]| {
                let mut all: Vec<_> = words.iter().map(|w| (w.stem.clone(), w.suffix)).collect();
                all.sort_by_key(|(stem, suffix)| (stem.clone(), suffix.map(Suffix::spelling)));
                all
            };
            match slip {
                Slip::Number => assert_eq!(stems(&right), stems(&wrong)),
                Slip::Gender => assert_eq!(right.len(), wrong.len()),
                Slip::Tense => assert!(right.len().abs_diff(wrong.len()) <= 1),
                Slip::Order => assert_eq!(sorted(&right), sorted(&wrong)),
            }
        }
    }
    assert!(seen.len() == 4 && seen.values().all(|&n| n > 50), "{seen:?}");
}

#[test]
fn the_passive_keeps_the_roles_and_turns_the_agreement() {
    let world = World::new(SEED);
    let of_role = |words: &[Word], role| words.iter().filter(|w| w.role == role).count();
    let mut turned = 0;
    for sentence in sentences(&world) {
        let Some(object) = sentence.object() else {
            continue;
        };
        let active = realised(&world, &sentence, Style::default(), 0);
        let passive = realised(&world, &sentence, Style { passive: true, ..Style::default() }, 0);
        let number = |words: &[Word]| {
            let verb = words.iter().rfind(|w| w.role == Role::Predicate);
            verb.and_then(|w| w.suffix).unwrap()
        };
        let ending = |plural| if plural { Suffix::ManyDo } else { Suffix::OneDoes };
        assert_eq!(number(&active), ending(sentence.subject.plural));
        assert_eq!(number(&passive), ending(object.plural));
        let first = |words: &[Word]| words[0].role;
        assert_eq!((first(&active), first(&passive)), (Role::Subject, Role::Object));
        for role in [Role::Subject, Role::Object] {
            assert_eq!(of_role(&active, role), of_role(&passive, role));
        }
        turned += usize::from(sentence.subject.plural != object.plural);
    }
    assert!(turned > 20);
}

/// Cross-entropy in nats per token on held-out text: of prediction by frequency, and of prediction from the preceding and
/// the following word. The difference is the value of the simplest context.
#[test]
fn neighbours_tell_much_about_a_word() {
    let world = World::new(SEED);
    let tokenizer = tokenizer(&world);
    let stream = |split, n| -> Vec<u32> {
        let paragraphs = world.paragraphs(n, 1, split);
        paragraphs.iter().flat_map(|p| tokenizer.ids(p).unwrap()).collect()
    };
    let (train, valid) = (stream(Split::Train, 6000), stream(Split::Valid, 600));

    let mut alone: HashMap<u32, f64> = HashMap::new();
    let mut between: HashMap<[u32; 3], f64> = HashMap::new();
    let mut contexts: HashMap<[u32; 2], f64> = HashMap::new();
    for w in train.windows(3) {
        *alone.entry(w[1]).or_default() += 1.0;
        *between.entry([w[0], w[1], w[2]]).or_default() += 1.0;
        *contexts.entry([w[0], w[2]]).or_default() += 1.0;
    }
    let (total, vocab) = (train.len() as f64, f64::from(tokenizer.vocab_size()));
    let (mut frequency, mut context, mut n) = (0.0, 0.0, 0.0);
    for w in valid.windows(3) {
        let p = (alone.get(&w[1]).unwrap_or(&0.0) + 0.5) / (total + 0.5 * vocab);
        // Interpolation with the frequency, at a weight of five occurrences of the context.
        let seen = contexts.get(&[w[0], w[2]]).unwrap_or(&0.0);
        let hits = between.get(&[w[0], w[1], w[2]]).unwrap_or(&0.0);
        frequency -= p.ln();
        context -= ((hits + 5.0 * p) / (seen + 5.0)).ln();
        n += 1.0;
    }
    let (frequency, context) = (frequency / n, context / n);
    println!("by frequency {frequency:.2} nats, from neighbours {context:.2} nats");
    assert!(frequency > 4.5, "{frequency}");
    assert!(context < frequency - 1.0, "{context} against {frequency}");
}

//! Edits of a meaning: changes of one part, and weaker statements.

use crate::invented::draw::Draw;
use crate::invented::grammar::{Kind, Noun, Tense};
use crate::invented::meaning::{Entity, NounPhrase, Person, Predicate, Region, Sentence, Town};
use crate::invented::world::World;

/// A part of a meaning that can change independently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Subject,
    Predicate,
    Object,
    Place,
    Tense,
}

impl Part {
    pub(super) const ALL: [Self; 5] = [Self::Subject, Self::Predicate, Self::Object, Self::Place, Self::Tense];
}

/// The sentence with another value of one part; `None` if the sentence lacks the part, or the world has no other value of
/// the same kind.
pub(super) fn changed(world: &World, sentence: &Sentence, part: Part, draw: &mut Draw) -> Option<Sentence> {
    let mut other = sentence.clone();
    match part {
        Part::Subject => other.subject.entity = another_entity(world, sentence.subject.entity, draw),
        Part::Predicate => other.predicate = another_predicate(world, sentence, draw)?,
        Part::Object => match &mut other.predicate {
            Predicate::Act { object: Some(object), .. } => object.entity = another_entity(world, object.entity, draw),
            Predicate::Act { .. } | Predicate::Quality { .. } | Predicate::SortOf(_) => return None,
        },
        Part::Place => other.place = Some(Town(another(sentence.place?.0, world.towns().len(), draw))),
        Part::Tense => {
            let tenses = [Tense::Past, Tense::Present, Tense::Future];
            other.tense = tenses[another(sentence.tense as usize, tenses.len(), draw)];
            if sentence.adverb.is_some() {
                other.adverb = Some(draw.below(world.lexicon().adverbs_of(other.tense).len()));
            }
        }
    }
    Some(other)
}

/// The sentence with a name in place of a pronoun, for use outside its paragraph.
pub(super) fn explicit(sentence: &Sentence) -> Sentence {
    let mut explicit = sentence.clone();
    explicit.subject.pronoun = false;
    explicit
}

/// The sentence without pronouns, adjectives and companions.
pub(super) fn bare(sentence: &Sentence) -> Sentence {
    let mut bare = explicit(sentence);
    for phrase in phrases(&mut bare) {
        strip(phrase);
    }
    bare
}

/// A sentence that the given sentence entails: the same statement or, of an affirmation, mostly a weaker one.
pub(super) fn weakened(sentence: &Sentence, draw: &mut Draw) -> Sentence {
    let mut weaker = explicit(sentence);
    // The negation of a statement does not entail the negation of a weaker statement.
    if sentence.negated {
        return weaker;
    }
    let mut drops = || draw.percent(60);
    if drops() {
        weaker.place = None;
    }
    if drops() {
        weaker.adverb = None;
    }
    for phrase in phrases(&mut weaker) {
        if drops() {
            strip(phrase);
        }
    }
    weaker
}

/// Whether `premise` entails `hypothesis` by the omissions that [`weakened`] makes. `hypothesis` has no pronouns.
pub(super) fn entails(premise: &Sentence, hypothesis: &Sentence) -> bool {
    let mut premise = explicit(premise);
    if !premise.negated {
        if hypothesis.place.is_none() {
            premise.place = None;
        }
        if hypothesis.adverb.is_none() {
            premise.adverb = None;
        }
        let mut hypothesis = hypothesis.clone();
        for (stated, phrase) in phrases(&mut premise).zip(phrases(&mut hypothesis)) {
            if phrase.adjectives.is_empty() && phrase.companion.is_none() {
                strip(stated);
            }
        }
    }
    premise == *hypothesis
}

/// The subject and the object.
fn phrases(sentence: &mut Sentence) -> impl Iterator<Item = &mut NounPhrase> {
    let object = match &mut sentence.predicate {
        Predicate::Act { object, .. } => object.as_mut(),
        Predicate::Quality { .. } | Predicate::SortOf(_) => None,
    };
    std::iter::once(&mut sentence.subject).chain(object)
}

fn strip(phrase: &mut NounPhrase) {
    phrase.adjectives.clear();
    phrase.companion = None;
}

/// A random number below `n` other than `i`. `n` is at least 2.
fn another(i: usize, n: usize, draw: &mut Draw) -> usize {
    (i + 1 + draw.below(n - 1)) % n
}

fn another_entity(world: &World, entity: Entity, draw: &mut Draw) -> Entity {
    match entity {
        Entity::Thing(Noun(noun)) => {
            let kind = world.lexicon().nouns[noun].kind;
            let others: Vec<Noun> = world.lexicon().nouns_of(kind).filter(|other| other.0 != noun).collect();
            Entity::Thing(draw.pick_zipf(&others))
        }
        Entity::Person(Person(i)) => Entity::Person(Person(another(i, world.people().len(), draw))),
        Entity::Town(Town(i)) => Entity::Town(Town(another(i, world.towns().len(), draw))),
        Entity::Region(Region(i)) => Entity::Region(Region(another(i, world.regions().len(), draw))),
    }
}

fn another_predicate(world: &World, sentence: &Sentence, draw: &mut Draw) -> Option<Predicate> {
    let lexicon = world.lexicon();
    let kind_of = |phrase: &NounPhrase| match phrase.entity {
        Entity::Thing(noun) => lexicon.nouns[noun.0].kind,
        Entity::Person(_) | Entity::Town(_) | Entity::Region(_) => Kind(0),
    };
    let subject = kind_of(&sentence.subject);
    match &sentence.predicate {
        Predicate::Act { verb, object } => {
            let mut verbs = lexicon.verbs_of(subject, object.is_some());
            // The verb of a relation is not in the list: no other verb states the same kind of fact.
            let position = verbs.iter().position(|other| other == verb)?;
            verbs.remove(position);
            if let Some(object) = object {
                verbs.retain(|verb| lexicon.verbs[verb.0].objects.contains(&kind_of(object)));
            }
            (!verbs.is_empty()).then(|| Predicate::Act { verb: draw.pick_zipf(&verbs), object: object.clone() })
        }
        Predicate::Quality { adjective, degree } => {
            let polarity = lexicon.adjectives[adjective.0].polarity;
            let mut adjectives = lexicon.adjectives_of(subject, polarity);
            adjectives.retain(|other| other != adjective);
            (!adjectives.is_empty())
                .then(|| Predicate::Quality { adjective: draw.pick_zipf(&adjectives), degree: *degree })
        }
        Predicate::SortOf(Kind(kind)) => Some(Predicate::SortOf(Kind(another(*kind, lexicon.kinds.len(), draw)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invented::split::Split;

    #[test]
    fn a_sentence_entails_weaker_ones_but_no_changed_ones() {
        let world = World::new(3);
        let draw = &mut Draw::new(1, 99, 0);
        let (mut shorter, mut others) = (0, 0);
        for (sentence, _) in (0..300).flat_map(|i| world.styled_sentences(1, Split::Train, i)) {
            let weaker = weakened(&sentence, draw);
            assert!(entails(&sentence, &weaker), "{sentence:?} {weaker:?}");
            if weaker != explicit(&sentence) {
                shorter += 1;
                assert!(!entails(&weaker, &explicit(&sentence)), "the longer does not follow from the shorter");
            }
            let denied = Sentence { negated: !weaker.negated, ..weaker.clone() };
            let changes = Part::ALL.into_iter().filter_map(|part| changed(&world, &weaker, part, draw)).chain([denied]);
            for other in changes {
                others += 1;
                assert!(!entails(&sentence, &other), "{sentence:?} {other:?}");
            }
        }
        assert!(shorter > 200 && others > 3000, "{shorter} {others}");
    }
}

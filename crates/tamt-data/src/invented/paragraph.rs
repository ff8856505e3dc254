//! Meanings of paragraphs: a few sentences about one person.
//!
//! A paragraph has a topic, a theme, a mood and a tense. The paragraph states facts about the topic, repeats mentioned
//! things with a definite article, takes most words from the theme, replaces the topic by a pronoun, praises or blames by
//! the mood, and sometimes repeats a sentence in other words. So a masked word is predictable from its neighbours
//! (agreement, kinds of objects), from the rest of the paragraph (theme, mentions, mood, tense) and from the world (facts).

use crate::invented::draw::Draw;
use crate::invented::grammar::{Adjective, Degree, Kind, Noun, Polarity, THEMES, Tense, Theme};
use crate::invented::meaning::{Entity, Fact, NounPhrase, Person, Predicate, Sentence, Town};
use crate::invented::world::World;

/// The meanings of the two to six sentences of a paragraph.
pub(super) fn sentences(world: &World, draw: &mut Draw) -> Vec<Sentence> {
    let topic = Person(draw.zipf(world.people().len()));
    let theme =
        if draw.percent(80) { world.lexicon().theme(world.people()[topic.0].trade) } else { Theme(draw.below(THEMES)) };
    let mood = draw.pick(&[Polarity::Good, Polarity::Bad]);
    let tense = match draw.below(10) {
        0..5 => Tense::Past,
        5..8 => Tense::Present,
        _ => Tense::Future,
    };
    let mut author = Author { world, draw, topic, theme, mood, tense, mentioned: Vec::new() };
    let mut sentences: Vec<Sentence> = Vec::new();
    for i in 0..2 + author.draw.below(5) {
        let again = i > 0 && author.draw.percent(12);
        let sentence = if again {
            let earlier = author.draw.below(i);
            sentences[earlier].clone()
        } else {
            author.sentence(i == 0)
        };
        author.note(&sentence);
        sentences.push(sentence);
    }
    sentences
}

/// The state of a paragraph under construction.
struct Author<'a> {
    world: &'a World,
    draw: &'a mut Draw,
    topic: Person,
    theme: Theme,
    mood: Polarity,
    tense: Tense,
    /// The things of the preceding sentences.
    mentioned: Vec<Noun>,
}

impl Author<'_> {
    fn sentence(&mut self, first: bool) -> Sentence {
        match self.draw.below(20) {
            0..6 => {
                let subject = self.topic_phrase(first);
                self.fact(subject)
            }
            6..8 => self.distant_fact(),
            8..15 => self.event(first),
            15..19 => self.quality(first),
            _ => self.sort(),
        }
    }

    /// Records the things that a sentence mentions.
    fn note(&mut self, sentence: &Sentence) {
        for phrase in std::iter::once(&sentence.subject).chain(sentence.object()) {
            if let Entity::Thing(noun) = phrase.entity
                && !self.mentioned.contains(&noun)
            {
                self.mentioned.push(noun);
            }
        }
    }

    /// The topic: by name in the first sentence, else mostly by pronoun.
    fn topic_phrase(&mut self, first: bool) -> NounPhrase {
        NounPhrase { pronoun: !first && self.draw.percent(65), ..Entity::Person(self.topic).into() }
    }

    /// A fact about the topic.
    fn fact(&mut self, subject: NounPhrase) -> Sentence {
        let fact = self.draw.pick_zipf(&self.world.facts_of(self.topic));
        self.state(fact, subject)
    }

    /// A fact about the topic's friend or home town.
    fn distant_fact(&mut self) -> Sentence {
        let person = &self.world.people()[self.topic.0];
        let fact = if self.draw.percent(50) {
            self.world.region_fact(person.home)
        } else {
            self.draw.pick_zipf(&self.world.facts_of(person.friend))
        };
        self.state(fact, fact.subject.into())
    }

    fn state(&mut self, fact: Fact, subject: NounPhrase) -> Sentence {
        let object = NounPhrase {
            // Owned things and trades take "a" also after a mention.
            definite: fact.value.is_named(),
            ..fact.value.into()
        };
        let verb = self.world.lexicon().relation(fact.relation);
        let act = Predicate::Act { verb, object: Some(object) };
        Sentence::new(subject, act)
    }

    /// An action of the topic, of another person or of an animal.
    fn event(&mut self, first: bool) -> Sentence {
        let (subject, kind) = if first || self.draw.percent(65) {
            (self.topic_phrase(first), Kind(0))
        } else {
            let kind = Kind(self.draw.below(2));
            (self.thing(kind), kind)
        };
        let lexicon = self.world.lexicon();
        let transitive = self.draw.percent(75);
        let verb = self.on_theme(lexicon.verbs_of(kind, transitive), |verb, theme| lexicon.suits(verb, theme));
        let object = transitive.then(|| {
            let object_kind = self.draw.pick(&lexicon.verbs[verb.0].objects);
            self.thing(object_kind)
        });
        let mut sentence = Sentence::new(subject, Predicate::Act { verb, object });
        sentence.negated = self.draw.percent(10);
        sentence.tense = self.tense;
        if self.draw.percent(50) {
            sentence.adverb = Some(self.draw.zipf(lexicon.adverbs_of(self.tense).len()));
        }
        if self.draw.percent(40) {
            sentence.place = Some(self.town());
        }
        sentence
    }

    /// A town: mostly the topic's home.
    fn town(&mut self) -> Town {
        if self.draw.percent(70) {
            self.world.people()[self.topic.0].home
        } else {
            Town(self.draw.zipf(self.world.towns().len()))
        }
    }

    /// A phrase for a thing of a kind, often one mentioned already.
    fn thing(&mut self, kind: Kind) -> NounPhrase {
        let lexicon = self.world.lexicon();
        let known: Vec<Noun> =
            self.mentioned.iter().copied().filter(|noun| lexicon.nouns[noun.0].kind == kind).collect();
        let again = !known.is_empty() && self.draw.percent(60);
        let noun = if again { self.draw.pick(&known) } else { self.noun(kind) };
        let mut phrase = NounPhrase { plural: self.draw.percent(35), definite: again, ..Entity::Thing(noun).into() };
        if self.draw.percent(30) {
            phrase.adjectives.push(self.adjective(kind));
        }
        if self.draw.percent(15) {
            let companion_kind = Kind(self.draw.below(lexicon.kinds.len()));
            let companion = NounPhrase {
                plural: self.draw.percent(50),
                definite: false,
                ..Entity::Thing(self.noun(companion_kind)).into()
            };
            phrase.companion = Some(Box::new(companion));
        }
        phrase
    }

    /// An element of the non-empty `pool`: in nine of ten cases one that fits the theme, if `pool` has any.
    fn on_theme<T: Copy>(&mut self, pool: Vec<T>, fits: impl Fn(T, Theme) -> bool) -> T {
        let (fitting, others): (Vec<T>, Vec<T>) = pool.into_iter().partition(|&item| fits(item, self.theme));
        let pick_other = !others.is_empty() && (fitting.is_empty() || self.draw.percent(10));
        self.draw.pick_zipf(if pick_other { &others } else { &fitting })
    }

    fn noun(&mut self, kind: Kind) -> Noun {
        let lexicon = self.world.lexicon();
        self.on_theme(lexicon.nouns_of(kind).collect(), |noun, theme| lexicon.theme(noun) == theme)
    }

    /// A plain adjective, or one of the paragraph's mood.
    fn adjective(&mut self, kind: Kind) -> Adjective {
        let polarity = if self.draw.percent(50) { Polarity::Plain } else { self.mood };
        let lexicon = self.world.lexicon();
        let mut pool = lexicon.adjectives_of(kind, polarity);
        if pool.is_empty() {
            pool = lexicon.adjectives_of(kind, self.mood);
        }
        self.on_theme(pool, |adjective, theme| lexicon.colours(adjective, theme))
    }

    /// Praise or blame by the paragraph's mood: an affirmation, or the negation of the opposite.
    fn quality(&mut self, first: bool) -> Sentence {
        let negated = self.draw.percent(25);
        let polarity = if negated { self.mood.opposite() } else { self.mood };
        let lexicon = self.world.lexicon();
        let (subject, kind) = if first || self.draw.percent(60) {
            (self.topic_phrase(first), Kind(0))
        } else {
            let kind = Kind(self.draw.below(lexicon.kinds.len()));
            (self.thing(kind), kind)
        };
        let known = self.world.people()[self.topic.0].quality;
        let of_topic = subject.entity == Entity::Person(self.topic);
        let adjective = if of_topic && lexicon.adjectives[known.0].polarity == polarity && self.draw.percent(60) {
            known
        } else {
            self.draw.pick_zipf(&lexicon.adjectives_of(kind, polarity))
        };
        let degree = self.draw.percent(30).then(|| Degree(self.draw.zipf(lexicon.degrees.len())));
        let mut sentence = Sentence::new(subject, Predicate::Quality { adjective, degree });
        sentence.negated = negated;
        sentence
    }

    /// The kind of a thing, often one mentioned already.
    fn sort(&mut self) -> Sentence {
        let lexicon = self.world.lexicon();
        let noun = if self.mentioned.is_empty() {
            Noun(self.draw.below(lexicon.nouns.len()))
        } else {
            self.draw.pick(&self.mentioned)
        };
        let subject = NounPhrase { definite: false, ..Entity::Thing(noun).into() };
        Sentence::new(subject, Predicate::SortOf(lexicon.nouns[noun.0].kind))
    }
}

//! Paragraphs: a few sentences about one person.
//!
//! A passage has a topic, a theme, a mood and a tense. Facts of the topic are told and retold, what was mentioned comes back
//! with a definite article, most words are of the theme, the topic becomes a pronoun, praise and blame follow the mood, and now and then a sentence
//! is said again in other words. So a missing word can be guessed from its neighbours (agreement, what a verb goes
//! with), from the rest of the passage (theme, mentions, mood, tense), and from the world (facts).

use super::World;
use super::draw::Draw;
use super::lexicon::{Adjective, Degree, Kind, Noun, Polarity, THEMES, Tense, Theme};
use super::meaning::{Entity, Fact, NounPhrase, Person, Predicate, Sentence, Town};

/// The meanings of a paragraph's sentences: two to six.
pub(super) fn passage(world: &World, draw: &mut Draw) -> Vec<Sentence> {
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

struct Author<'a> {
    world: &'a World,
    draw: &'a mut Draw,
    topic: Person,
    theme: Theme,
    mood: Polarity,
    tense: Tense,
    /// Things met in earlier sentences.
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

    fn note(&mut self, sentence: &Sentence) {
        for phrase in std::iter::once(&sentence.subject).chain(sentence.object()) {
            if let Entity::Thing(noun) = phrase.entity
                && !self.mentioned.contains(&noun)
            {
                self.mentioned.push(noun);
            }
        }
    }

    /// The topic, by name in the first sentence and now and then later.
    fn topic_phrase(&mut self, first: bool) -> NounPhrase {
        NounPhrase { pronoun: !first && self.draw.percent(65), ..Entity::Person(self.topic).into() }
    }

    fn fact(&mut self, subject: NounPhrase) -> Sentence {
        let fact = self.draw.pick_zipf(&self.world.facts_of(self.topic));
        self.state(fact, subject)
    }

    /// A fact about what the topic's facts are about: the friend's trade, the home town's region.
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
            // One owns "a" thing and works as "a" something, whether or not it was mentioned.
            definite: fact.value.is_named(),
            ..fact.value.into()
        };
        let verb = self.world.lexicon().relation(fact.relation);
        let act = Predicate::Act { verb, object: Some(object) };
        Sentence::new(subject, act)
    }

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

    /// Mostly where the topic lives.
    fn town(&mut self) -> Town {
        if self.draw.percent(70) {
            self.world.people()[self.topic.0].home
        } else {
            Town(self.draw.zipf(self.world.towns().len()))
        }
    }

    /// Something of a kind, often one that was mentioned.
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

    /// One of `pool`, which must not be empty: nearly always, where there is one, at home in the theme.
    fn on_theme<T: Copy>(&mut self, pool: Vec<T>, fits: impl Fn(T, Theme) -> bool) -> T {
        let (at_home, abroad): (Vec<T>, Vec<T>) = pool.into_iter().partition(|&item| fits(item, self.theme));
        let stray = !abroad.is_empty() && (at_home.is_empty() || self.draw.percent(10));
        self.draw.pick_zipf(if stray { &abroad } else { &at_home })
    }

    fn noun(&mut self, kind: Kind) -> Noun {
        let lexicon = self.world.lexicon();
        self.on_theme(lexicon.nouns_of(kind).collect(), |noun, theme| lexicon.theme(noun) == theme)
    }

    /// A plain quality of the kind, or one of the passage's mood.
    fn adjective(&mut self, kind: Kind) -> Adjective {
        let polarity = if self.draw.percent(50) { Polarity::Plain } else { self.mood };
        let lexicon = self.world.lexicon();
        let mut pool = lexicon.adjectives_of(kind, polarity);
        if pool.is_empty() {
            pool = lexicon.adjectives_of(kind, self.mood);
        }
        self.on_theme(pool, |adjective, theme| lexicon.colours(adjective, theme))
    }

    /// Praise or blame in the passage's mood: directly, or by denying the opposite.
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

//! The wording of meanings.
//!
//! The grammar, with `+` before an ending:
//!
//! ```text
//! sentence   subject [not] [tense] verb +number [object] [at place] [adverb] .
//! passive    object  [not] [tense] passive verb +number by subject [at place] [adverb] .
//! fronted    [adverb] [at place] then the rest
//! quality    subject [not] [tense] be +number [degree] adjective +gender .
//! sort       subject [not] [tense] be +number sort kind .
//! phrase     name | pronoun | determiner noun [+plural] {adjective +gender} [with phrase]
//! ```
//!
//! A verb agrees in number with the phrase before it. Determiners and adjectives agree in gender with their noun. The
//! tense particle agrees with the adverb. A [`Slip`] violates exactly one of these rules.

use crate::invented::draw::Draw;
use crate::invented::grammar::{Gender, Kind, Suffix, Tense, Verb};
use crate::invented::lexicon::Synonyms;
use crate::invented::meaning::{Entity, NounPhrase, Predicate, Sentence, Town};
use crate::invented::world::World;

/// The role of a word in its sentence. A question asks for the words of one role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Part of the subject, which performs the action also in the passive.
    Subject,
    /// The verb with its particles, or the quality.
    Predicate,
    /// Part of the object.
    Object,
    /// The town of the event.
    Place,
    /// The adverb of time.
    Time,
    /// A preposition before a place or a passive subject; part of no answer.
    Link,
}

/// A word with its ending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// The word's form in the lexicon.
    pub stem: String,
    /// The ending.
    pub suffix: Option<Suffix>,
    /// The role in the sentence.
    pub role: Role,
}

/// A violation of a grammatical rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Slip {
    /// The verb has the wrong number.
    Number,
    /// A determiner or adjective has the wrong gender.
    Gender,
    /// The tense particle contradicts the adverb.
    Tense,
    /// The verb stands first.
    Order,
}

/// The style of a wording. All styles without a slip express the same meaning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Style {
    /// Whether the object comes first and the verb agrees with the object. Ignored without an object.
    pub passive: bool,
    /// Whether adverb and place come first.
    pub fronted: bool,
    /// The violated rule.
    pub slip: Option<Slip>,
}

impl Style {
    /// A random style without a slip.
    pub fn random(draw: &mut Draw) -> Self {
        Self { passive: draw.percent(20), fronted: draw.percent(40), slip: None }
    }
}

impl Sentence {
    /// Whether a slip is visible: a wrong tense needs an adverb, and a wrong gender needs a determiner or an adjective.
    pub fn admits(&self, slip: Slip) -> bool {
        let gendered =
            |phrase: &NounPhrase| !phrase.pronoun && (!phrase.entity.is_named() || !phrase.adjectives.is_empty());
        match slip {
            Slip::Number | Slip::Order => true,
            Slip::Gender => gendered(&self.subject),
            Slip::Tense => self.adverb.is_some(),
        }
    }
}

/// The words of a sentence, without the full stop. `draw` chooses among synonyms.
pub fn realise(world: &World, sentence: &Sentence, style: Style, draw: &mut Draw) -> Vec<Word> {
    let mut speaker = Speaker { world, draw, slip: style.slip, words: Vec::new() };
    speaker.sentence(sentence, style);
    speaker.words
}

/// The words as text, with a full stop at the end.
pub fn text(words: &[Word]) -> String {
    let mut text = String::new();
    for word in words {
        if !text.is_empty() {
            text.push(' ');
        }
        text += &word.stem;
        text += word.suffix.map_or("", Suffix::spelling);
    }
    text.push('.');
    text
}

/// The words of a sentence under construction.
struct Speaker<'a> {
    world: &'a World,
    draw: &'a mut Draw,
    slip: Option<Slip>,
    words: Vec<Word>,
}

impl Speaker<'_> {
    fn sentence(&mut self, sentence: &Sentence, style: Style) {
        if style.fronted {
            self.circumstances(sentence);
        }
        let clause = self.words.len();
        let lexicon = self.world.lexicon();
        match &sentence.predicate {
            Predicate::Act { verb, object: Some(object) } if style.passive => {
                self.phrase(object, Role::Object);
                self.verb(sentence, *verb, object.plural, true);
                self.say(&lexicon.particles.by, None, Role::Link);
                self.phrase(&sentence.subject, Role::Subject);
            }
            Predicate::Act { verb, object } => {
                self.phrase(&sentence.subject, Role::Subject);
                self.verb(sentence, *verb, sentence.subject.plural, false);
                if let Some(object) = object {
                    self.phrase(object, Role::Object);
                }
            }
            Predicate::Quality { adjective, degree } => {
                self.phrase(&sentence.subject, Role::Subject);
                self.be(sentence);
                if let Some(degree) = degree {
                    self.say(&lexicon.degrees[degree.0], None, Role::Predicate);
                }
                let gender = self.world.gender(sentence.subject.entity);
                let adjective = &lexicon.adjectives[adjective.0].forms;
                self.say_synonym(adjective, Some(Suffix::Of(gender)), Role::Predicate);
            }
            Predicate::SortOf(Kind(kind)) => {
                self.phrase(&sentence.subject, Role::Subject);
                self.be(sentence);
                self.say(&lexicon.particles.sort, None, Role::Predicate);
                self.say_synonym(&lexicon.kinds[*kind].forms, None, Role::Predicate);
            }
        }
        if style.slip == Some(Slip::Order)
            && let Some(last) = self.words.iter().rposition(|w| w.role == Role::Predicate)
        {
            let verb = self.words.remove(last);
            self.words.insert(clause, verb);
        }
        if !style.fronted {
            self.circumstances(sentence);
        }
    }

    /// The adverb and the place.
    fn circumstances(&mut self, sentence: &Sentence) {
        let lexicon = self.world.lexicon();
        if let Some(adverb) = sentence.adverb {
            let adverbs = lexicon.adverbs_of(sentence.tense);
            self.say(&adverbs[adverb], None, Role::Time);
        }
        if let Some(Town(town)) = sentence.place {
            self.say(&lexicon.particles.at, None, Role::Link);
            self.say(&self.world.towns()[town].name, None, Role::Place);
        }
    }

    fn verb(&mut self, sentence: &Sentence, verb: Verb, plural: bool, passive: bool) {
        self.before_verb(sentence);
        let lexicon = self.world.lexicon();
        if passive {
            self.say(&lexicon.particles.passive, None, Role::Predicate);
        }
        let ending = self.number(plural);
        self.say_synonym(&lexicon.verbs[verb.0].forms, ending, Role::Predicate);
    }

    fn be(&mut self, sentence: &Sentence) {
        self.before_verb(sentence);
        let ending = self.number(sentence.subject.plural);
        self.say(&self.world.lexicon().particles.be, ending, Role::Predicate);
    }

    /// The particles of negation and tense.
    fn before_verb(&mut self, sentence: &Sentence) {
        let particles = &self.world.lexicon().particles;
        if sentence.negated {
            self.say(&particles.not, None, Role::Predicate);
        }
        let tense = match (sentence.tense, self.slip) {
            (Tense::Past, Some(Slip::Tense)) => Tense::Future,
            (_, Some(Slip::Tense)) => Tense::Past,
            (tense, _) => tense,
        };
        match tense {
            Tense::Past => self.say(&particles.past, None, Role::Predicate),
            Tense::Present => {}
            Tense::Future => self.say(&particles.future, None, Role::Predicate),
        }
    }

    /// The ending of a verb.
    fn number(&self, plural: bool) -> Option<Suffix> {
        Some(if plural != (self.slip == Some(Slip::Number)) { Suffix::ManyDo } else { Suffix::OneDoes })
    }

    fn phrase(&mut self, phrase: &NounPhrase, role: Role) {
        let lexicon = self.world.lexicon();
        let gender = self.world.gender(phrase.entity);
        if phrase.pronoun {
            let which = if phrase.plural { 2 } else { gender as usize };
            self.say(&lexicon.particles.pronouns[which], None, role);
            return;
        }
        // A slip of gender affects all words that agree with the subject's noun.
        let shown = match self.slip {
            Some(Slip::Gender) if role == Role::Subject => gender.other(),
            _ => gender,
        };
        match phrase.entity {
            Entity::Thing(noun) => {
                self.determiner(phrase.definite, shown, role);
                let plural = phrase.plural.then_some(Suffix::Plural);
                self.say_synonym(&lexicon.nouns[noun.0].forms, plural, role);
            }
            named => self.say(self.world.name(named), None, role),
        }
        for adjective in &phrase.adjectives {
            let forms = &lexicon.adjectives[adjective.0].forms;
            self.say_synonym(forms, Some(Suffix::Of(shown)), role);
        }
        if let Some(companion) = &phrase.companion {
            self.say(&lexicon.particles.with, None, role);
            self.phrase(companion, role);
        }
    }

    fn determiner(&mut self, definite: bool, gender: Gender, role: Role) {
        let particles = &self.world.lexicon().particles;
        let words = if definite { &particles.definite } else { &particles.indefinite };
        self.say(&words[gender as usize], None, role);
    }

    fn say_synonym(&mut self, forms: &Synonyms, suffix: Option<Suffix>, role: Role) {
        let form = self.draw.zipf(forms.len());
        self.say(&forms[form], suffix, role);
    }

    fn say(&mut self, stem: &str, suffix: Option<Suffix>, role: Role) {
        self.words.push(Word { stem: stem.to_owned(), suffix, role });
    }
}

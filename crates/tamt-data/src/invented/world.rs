//! The invented world: its language, people, places and facts.

use crate::invented::draw::Draw;
use crate::invented::facts::{self, PersonEntry, PlaceEntry};
use crate::invented::grammar::{Gender, Noun, Relation};
use crate::invented::lexicon::Lexicon;
use crate::invented::meaning::{Entity, Fact, Person, Region, Town};
use crate::invented::site;

/// A language and the world that its texts describe.
#[derive(Clone, Debug)]
pub struct World {
    lexicon: Lexicon,
    people: Vec<PersonEntry>,
    towns: Vec<PlaceEntry>,
    regions: Vec<PlaceEntry>,
}

impl World {
    /// The world of a seed. A seed gives the same words, people and facts on every machine.
    pub fn new(seed: u64) -> Self {
        let names = facts::PEOPLE + facts::TOWNS + facts::REGIONS;
        let lexicon = Lexicon::new(&mut Draw::new(seed, site::LEXICON, 0), names);
        let draw = &mut Draw::new(seed, site::FACTS, 0);
        Self {
            people: facts::people(&lexicon, draw),
            towns: facts::towns(&lexicon, draw),
            regions: facts::regions(&lexicon, draw),
            lexicon,
        }
    }

    /// The words.
    pub fn lexicon(&self) -> &Lexicon {
        &self.lexicon
    }

    /// The people; texts mention the first ones most often.
    pub fn people(&self) -> &[PersonEntry] {
        &self.people
    }

    /// The towns; texts mention the first ones most often.
    pub fn towns(&self) -> &[PlaceEntry] {
        &self.towns
    }

    /// The regions.
    pub fn regions(&self) -> &[PlaceEntry] {
        &self.regions
    }

    /// The facts about a person, most frequent first.
    pub fn facts_of(&self, person: Person) -> [Fact; 5] {
        self.people[person.0].facts(person)
    }

    /// The fact that a town lies in its region.
    pub fn region_fact(&self, town: Town) -> Fact {
        Fact {
            subject: Entity::Town(town),
            relation: Relation::LiesIn,
            value: Entity::Region(self.towns[town.0].region),
        }
    }

    /// The gender of an entity, with which determiners, adjectives and pronouns agree.
    pub fn gender(&self, entity: Entity) -> Gender {
        match entity {
            Entity::Thing(Noun(i)) => self.lexicon.nouns[i].gender,
            Entity::Person(Person(i)) => self.people[i].gender,
            Entity::Town(Town(i)) => self.towns[i].gender,
            Entity::Region(Region(i)) => self.regions[i].gender,
        }
    }

    /// The name of an entity, or its most frequent noun.
    pub fn name(&self, entity: Entity) -> &str {
        match entity {
            Entity::Thing(Noun(i)) => &self.lexicon.nouns[i].forms[0],
            Entity::Person(Person(i)) => &self.people[i].name,
            Entity::Town(Town(i)) => &self.towns[i].name,
            Entity::Region(Region(i)) => &self.regions[i].name,
        }
    }
}

//! People, places and facts of the world.

use crate::invented::draw::Draw;
use crate::invented::grammar::{Adjective, Gender, Kind, Noun, Polarity, Relation};
use crate::invented::lexicon::Lexicon;
use crate::invented::meaning::{Entity, Fact, Person, Region, Town};

pub(super) const PEOPLE: usize = 64;
pub(super) const TOWNS: usize = 32;
pub(super) const REGIONS: usize = 6;

/// A person, with the facts about them.
#[derive(Clone, Debug)]
pub struct PersonEntry {
    /// The name.
    pub name: String,
    /// The gender of adjectives and pronouns.
    pub gender: Gender,
    /// The town where the person lives.
    pub home: Town,
    /// A thing that the person owns.
    pub owns: Noun,
    /// The person's trade. `owns` and `likes` have the same theme.
    pub trade: Noun,
    /// A thing that the person likes.
    pub likes: Noun,
    /// A friend; friendship is not always mutual.
    pub friend: Person,
    /// A quality that texts often state.
    pub quality: Adjective,
}

/// A town or a region.
#[derive(Clone, Debug)]
pub struct PlaceEntry {
    /// The name.
    pub name: String,
    /// The gender of adjectives.
    pub gender: Gender,
    /// The region of the place; a region lies in itself.
    pub region: Region,
}

pub(super) fn people(lexicon: &Lexicon, draw: &mut Draw) -> Vec<PersonEntry> {
    let of_theme = |draw: &mut Draw, kind, theme| {
        let nouns: Vec<_> = lexicon.nouns_of(kind).filter(|&noun| lexicon.theme(noun) == theme).collect();
        draw.pick(&nouns)
    };
    let trades: Vec<_> = lexicon.nouns_of(Kind(0)).collect();
    let qualities = [Polarity::Good, Polarity::Bad].map(|p| lexicon.adjectives_of(Kind(0), p));
    (0..PEOPLE)
        .map(|i| {
            let trade = draw.pick(&trades);
            let theme = lexicon.theme(trade);
            let owned = Kind(draw.pick(&[1, 2, 5, 6]));
            let side = draw.below(2);
            PersonEntry {
                name: lexicon.names[i].clone(),
                gender: gender(draw),
                home: Town(draw.zipf(TOWNS)),
                owns: of_theme(draw, owned, theme),
                trade,
                likes: of_theme(draw, Kind(3), theme),
                // Any other person.
                friend: Person((i + 1 + draw.below(PEOPLE - 1)) % PEOPLE),
                quality: draw.pick(&qualities[side]),
            }
        })
        .collect()
}

pub(super) fn towns(lexicon: &Lexicon, draw: &mut Draw) -> Vec<PlaceEntry> {
    (0..TOWNS)
        .map(|i| PlaceEntry {
            name: lexicon.names[PEOPLE + i].clone(),
            gender: gender(draw),
            region: Region(draw.below(REGIONS)),
        })
        .collect()
}

pub(super) fn regions(lexicon: &Lexicon, draw: &mut Draw) -> Vec<PlaceEntry> {
    (0..REGIONS)
        .map(|i| PlaceEntry {
            name: lexicon.names[PEOPLE + TOWNS + i].clone(),
            gender: gender(draw),
            region: Region(i),
        })
        .collect()
}

fn gender(draw: &mut Draw) -> Gender {
    draw.pick(&[Gender::First, Gender::Second])
}

impl PersonEntry {
    /// The facts about this person, whose index is `subject`; most frequent first.
    pub fn facts(&self, subject: Person) -> [Fact; 5] {
        [
            (Relation::LivesIn, Entity::Town(self.home)),
            (Relation::Owns, Entity::Thing(self.owns)),
            (Relation::WorksAs, Entity::Thing(self.trade)),
            (Relation::Likes, Entity::Thing(self.likes)),
            (Relation::Befriends, Entity::Person(self.friend)),
        ]
        .map(|(relation, value)| Fact { subject: Entity::Person(subject), relation, value })
    }
}

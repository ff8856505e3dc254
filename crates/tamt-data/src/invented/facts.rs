//! Who and what there is in the world, and what is so.

use super::draw::Draw;
use super::lexicon::{Adjective, Gender, Kind, Lexicon, Noun, Polarity, Relation};
use super::meaning::{Entity, Fact, Person, Region, Town};

pub(super) const PEOPLE: usize = 64;
pub(super) const TOWNS: usize = 32;
pub(super) const REGIONS: usize = 6;

/// Somebody.
#[derive(Clone, Debug)]
pub struct PersonEntry {
    /// What they are called.
    pub name: String,
    /// What their adjectives and pronouns agree in.
    pub gender: Gender,
    /// Where they live.
    pub home: Town,
    /// What they own.
    pub owns: Noun,
    /// What they work as; what they own and like is of the same theme.
    pub trade: Noun,
    /// What they like.
    pub likes: Noun,
    /// Whom they befriend, not always in return.
    pub friend: Person,
    /// What is said of them again and again.
    pub quality: Adjective,
}

/// A town or a region.
#[derive(Clone, Debug)]
pub struct PlaceEntry {
    /// What it is called.
    pub name: String,
    /// What its adjectives agree in.
    pub gender: Gender,
    /// Where it lies; a region lies in itself.
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
                // Anybody but themselves.
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
    /// What is so of the person `subject`, whose entry this is; what is told most, first.
    #[must_use]
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

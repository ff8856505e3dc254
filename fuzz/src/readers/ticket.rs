//! Tickets.

use tamt::inspect::Rates;
use tamt::ticket::{BaseCheck, TICKET_FILE, Ticket};

use crate::readers::files;
use crate::readers::training::tiny_model;

/// A ticket is written and read again; its rates are shares; it fits a model or is refused.
pub(crate) fn ticket(input: &[u8]) -> bool {
    let dir = files::one(TICKET_FILE, input);
    let Ok(ticket) = Ticket::read(dir.path()) else { return false };
    let bits: usize = ticket.matrices.iter().map(|(_, mask)| mask.rows() * mask.cols()).sum();
    assert!(bits <= 8 * input.len(), "{bits} bits in {} bytes", input.len());

    let path = dir.path().join("again.safetensors");
    ticket.write(&path).expect("a ticket can be written");
    let again = Ticket::read(&path).expect("a written ticket is read");
    assert_eq!(again, ticket);

    let model = tiny_model();
    for rates in [Rates::of(&ticket, None), Rates::of(&ticket, Some(model))] {
        assert!((0.0..=1.0).contains(&rates.sparsity) || bits == 0, "{}", rates.sparsity);
    }
    let jaccard = Rates::of(&ticket, None).against(&ticket, &again).expect("equal tickets can be compared").jaccard;
    assert!(jaccard.is_some_and(|jaccard| (jaccard - 1.0).abs() < 1e-9), "{jaccard:?}");
    let own = ticket.masks(model, BaseCheck::NamesAndShapes);
    let bound = ticket.masks(model, BaseCheck::Sha256(&ticket.provenance.base_sha256));
    assert_eq!(own.is_ok(), bound.is_ok());
    assert!(ticket.masks(model, BaseCheck::Sha256("another digest")).is_err() || own.is_ok());
    true
}

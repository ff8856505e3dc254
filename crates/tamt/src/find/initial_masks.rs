//! The masks that mask training starts from.

use std::path::Path;

use tamt_model::Masks;

use crate::error::{Error, Result};
use crate::find::search::Search;
use crate::find::settings::{FindSettings, MaskInit};
use crate::magnitude::{magnitude, magnitude_of_survivors};
use crate::prune::Scope;
use crate::random::random;
use crate::ticket::Ticket;

/// The initial masks that the settings name, at the sparsity of the search.
///
/// # Errors
/// If a ticket cannot be read, belongs to another model, masks a matrix that the search does not prune, or is sparser
/// than the search.
pub(crate) fn initial_masks(search: &Search<'_>) -> Result<Masks> {
    let FindSettings { sparsity, scope, seed, .. } = *search.settings;
    let model = &search.base.model;
    match &search.settings.start {
        MaskInit::Magnitude => Ok(magnitude(model, &search.ids, sparsity, scope)),
        MaskInit::Random => Ok(random(model, &search.ids, sparsity, scope, seed)),
        MaskInit::Ticket(path) => {
            let ticket = Ticket::read(path)?;
            fit(search, path, &search.base.masks_of(&ticket, search.settings.allow_other_base)?)
        }
    }
}

/// Drops the smallest weights that a denser ticket keeps, up to the sparsity of the search.
fn fit(search: &Search<'_>, path: &Path, masks: &Masks) -> Result<Masks> {
    let FindSettings { sparsity, scope, .. } = *search.settings;
    let model = &search.base.model;
    let fitted = magnitude_of_survivors(model, &search.ids, masks, sparsity, scope);
    for (id, mask) in masks.iter() {
        let kept = fitted.get(id).ok_or_else(|| {
            let name = &model.params.spec(id).name;
            Error::setting("init", format!("{} masks {name}, which this run does not prune", path.display()))
        })?;
        if kept.intersection_count(mask) != kept.count_ones() {
            let (path, share) = (path.display(), sparsity.share());
            let reason = match scope {
                Scope::Local => format!("{path} drops more than {share} of {}", model.params.spec(id).name),
                Scope::Global => format!("{path} drops more than {share}"),
            };
            return Err(Error::setting("init", reason));
        }
    }
    Ok(fitted)
}

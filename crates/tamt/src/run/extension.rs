//! More steps for a recorded run.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use toml::Value;

use crate::error::{Error, SettingDifference};

/// The settings that give the length of a run.
const LENGTHS: [&str; 3] = ["train.max-steps", "duration.max-steps", "duration.epochs"];

/// The settings that give the shape and the horizon of a schedule: of a fine-tuning, of the other runs.
const SCHEDULES: [(&str, &str); 2] =
    [("lr-schedule", "lr-horizon-steps"), ("train.schedule.shape", "train.schedule.horizon")];

/// A longer run than the recorded one, with the same steps at its start.
#[derive(Debug)]
pub(super) struct Extension {
    length: SettingDifference,
}

impl Extension {
    /// The error of an extension that `reason` forbids.
    pub(super) fn refused(self, directory: &Path, reason: &str) -> Error {
        let (path, reason) = (directory.to_owned(), Some(reason.to_owned()));
        Error::SettingsDiffer { path, differences: vec![self.length], reason }
    }
}

impl fmt::Display for Extension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = |value: &Option<Value>| value.as_ref().map_or_else(String::new, ToString::to_string);
        let name = self.length.key.rsplit('.').next().unwrap_or_default();
        write!(
            f,
            "the run becomes longer: {name} {} instead of {}",
            show(&self.length.given),
            show(&self.length.recorded)
        )
    }
}

/// The extension that `differences` from the `recorded` settings amount to.
///
/// # Errors
/// The differences, with the reason if they ask for more steps and the recorded steps would have been others.
pub(super) fn allowed(
    mut differences: Vec<SettingDifference>,
    recorded: &BTreeMap<String, &Value>,
) -> Result<Extension, (Vec<SettingDifference>, Option<String>)> {
    let Some(at) = differences.iter().position(|d| LENGTHS.contains(&d.key.as_str())) else {
        return Err((differences, None));
    };
    let number = |value: &Option<Value>| value.as_ref().and_then(|v| v.as_float().or(v.as_integer().map(|i| i as f64)));
    let (before, after) = (number(&differences[at].recorded), number(&differences[at].given));
    let refused = |differences, reason: &str| Err((differences, Some(reason.to_owned())));
    if before.zip(after).is_none_or(|(before, after)| after < before) {
        return refused(differences, "a run can become longer, not shorter");
    }
    let is = |key: &str, text: &str| recorded.get(key).and_then(|value| value.as_str()) == Some(text);
    if is("method", "imp") {
        return refused(differences, "its number of steps decides the rounds of iterative pruning");
    }
    let own = SCHEDULES.into_iter().find(|(shape, _)| recorded.contains_key(*shape));
    let is_constant = own.is_some_and(|(shape, _)| is(shape, "constant"));
    let horizon = own.map_or("", |(_, horizon)| horizon);
    // A fine-tuning without a recorded horizon has its last step as the horizon.
    let is_free = is_constant || (recorded.contains_key(horizon) && !differences.iter().any(|d| d.key == horizon));
    if !is_free {
        return refused(
            differences,
            "more steps would change its learning rates; a run with a constant lr-schedule or an lr-horizon-steps of \
             its own can become longer",
        );
    }
    differences.retain(|d| LENGTHS.contains(&d.key.as_str()) || !(is_constant && d.key == horizon));
    match <[SettingDifference; 1]>::try_from(differences) {
        Ok([length]) => Ok(Extension { length }),
        Err(differences) => Err((differences, None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The outcome of `given` in place of `recorded`: the note, or the reason.
    fn outcome(recorded: &str, given: &str) -> Result<String, Option<String>> {
        let parse = |text: &str| -> BTreeMap<String, Value> {
            text.split(", ")
                .map(|item| item.split_once(" = ").unwrap())
                .map(|(k, v)| (k.to_owned(), value(v)))
                .collect()
        };
        let (recorded, given) = (parse(recorded), parse(given));
        let differs = |key: &&String| recorded.get(*key) != given.get(*key);
        let keys = recorded.keys().chain(given.keys().filter(|key| !recorded.contains_key(*key)));
        let difference = |key: &String| SettingDifference {
            key: key.clone(),
            recorded: recorded.get(key).cloned(),
            given: given.get(key).cloned(),
        };
        let differences = keys.filter(differs).map(difference).collect();
        let references = recorded.iter().map(|(key, value)| (key.clone(), value)).collect();
        allowed(differences, &references).map(|e| e.to_string()).map_err(|(_, reason)| reason)
    }

    fn value(text: &str) -> Value {
        toml::from_str::<toml::Table>(&format!("x = {text}")).unwrap()["x"].clone()
    }

    #[test]
    fn a_run_becomes_longer_where_its_first_steps_stay_as_they_were() {
        let constant = "train.schedule.shape = 'constant', train.max-steps = 10, train.schedule.horizon = 10";
        let longer = constant.replace("10", "20");
        assert!(outcome(constant, &longer).unwrap().ends_with("max-steps 20 instead of 10"));
        assert!(outcome(&longer, constant).unwrap_err().unwrap().contains("not shorter"));
        assert_eq!(outcome(constant, &format!("{longer}, seed = 3")), Err(None));
        let linear = constant.replace("constant", "linear");
        assert!(
            outcome(&linear, &longer.replace("constant", "linear")).unwrap_err().unwrap().contains("learning rates")
        );
        let apart = linear.replace("horizon = 10", "horizon = 40");
        assert!(outcome(&apart, &apart.replace("max-steps = 10", "max-steps = 20")).is_ok());
        assert!(outcome(&format!("{constant}, method = 'imp'"), &format!("{longer}, method = 'imp'")).is_err());
    }

    #[test]
    fn a_fine_tuning_without_a_horizon_of_its_own_stays_as_long_as_it_was() {
        let linear = "lr-schedule = 'linear', duration.epochs = 1.0";
        let longer = "lr-schedule = 'linear', duration.epochs = 2.0";
        assert!(outcome(linear, longer).unwrap_err().is_some());
        let with_horizon = |settings: &str| format!("{settings}, lr-horizon-steps = 9");
        assert!(outcome(&with_horizon(linear), &with_horizon(longer)).is_ok());
        assert!(outcome(&linear.replace("linear", "constant"), &longer.replace("linear", "constant")).is_ok());
    }
}

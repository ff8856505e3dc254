//! Parsers of numbers and paths.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use tamt::find::MaskInit;
use tamt_data::nearest;
use tamt_data::tasks::Format;

/// Most threads of a verb: each takes memory and time to start, whatever it computes.
pub(crate) const MOST_THREADS: i64 = 1024;

/// The values of `--init` that are no tickets.
pub(crate) const START_MASKS: [&str; 2] = ["magnitude", "random"];

/// The values of `--mlm-head` that are no files.
pub(crate) const MLM_HEADS: [&str; 2] = ["pretrained", "ticket"];

/// The MLM head that `eval` predicts with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum EvalHead {
    Pretrained,
    Ticket,
    File(PathBuf),
}

/// The value of `--mlm-head`.
pub(crate) fn eval_head(text: OsString) -> Result<EvalHead, String> {
    match text.to_str() {
        Some("") => Err("it is pretrained, ticket, or a file".to_owned()),
        Some("pretrained") => Ok(EvalHead::Pretrained),
        Some("ticket") => Ok(EvalHead::Ticket),
        _ => Ok(EvalHead::File(file_not_keyword(text, &MLM_HEADS)?)),
    }
}

/// Where `encode` and `predict` read their texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TextSource {
    Stdin,
    File(PathBuf),
}

impl TextSource {
    /// The name in messages.
    pub(crate) fn name(&self) -> PathBuf {
        match self {
            Self::Stdin => "stdin".into(),
            Self::File(path) => path.clone(),
        }
    }
}

impl From<OsString> for TextSource {
    fn from(name: OsString) -> Self {
        if name == "-" { Self::Stdin } else { Self::File(name.into()) }
    }
}

/// Where `predict` writes its lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LineTarget {
    Stdout,
    File(PathBuf),
}

impl From<OsString> for LineTarget {
    fn from(name: OsString) -> Self {
        if name == "-" { Self::Stdout } else { Self::File(name.into()) }
    }
}

/// What `predict` reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InputFormat {
    /// A text on each line.
    Text,
    Table(Format),
    /// `SQuAD`'s JSON.
    Squad,
}

/// A path and the name by which it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
}

/// `NAME=PATH`.
pub(crate) fn named(text: &str) -> Result<Named, String> {
    match text.split_once('=') {
        Some((name, path)) if !name.is_empty() && !path.is_empty() => {
            Ok(Named { name: name.to_owned(), path: path.into() })
        }
        _ => Err("it is a name, =, and a path".to_owned()),
    }
}

/// `HOST:PORT`.
pub(crate) fn address(text: &str) -> Result<String, String> {
    let is_name = |host: &str| !host.is_empty() && !host.contains(':');
    let of_name = text.rsplit_once(':').is_some_and(|(host, port)| is_name(host) && port.parse::<u16>().is_ok());
    if of_name || text.parse::<SocketAddr>().is_ok() {
        Ok(text.to_owned())
    } else {
        Err(format!("it is a host (an IPv6 address in brackets), :, and a port from 0 to {}", u16::MAX))
    }
}

/// The mask that mask training starts from.
pub(crate) fn initial_mask(text: OsString) -> Result<MaskInit, String> {
    match text.to_str() {
        Some("") => Err("it is magnitude, random, or a ticket".to_owned()),
        Some("magnitude") => Ok(MaskInit::Magnitude),
        Some("random") => Ok(MaskInit::Random),
        _ => Ok(MaskInit::Ticket(file_not_keyword(text, &START_MASKS)?)),
    }
}

/// The path `text`, unless nothing is there and `text` resembles a keyword.
fn file_not_keyword(text: OsString, keywords: &[&str]) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    let meant = path.to_str().and_then(|text| nearest(text, keywords.iter().copied()));
    match meant.filter(|_| !path.exists()) {
        Some(meant) => Err(format!("there is no such file; did you mean {meant}?")),
        None => Ok(path),
    }
}

/// A share of the weights strictly between none and all.
pub(crate) fn sparsity(text: &str) -> Result<f64, String> {
    let (digits, percent) = match text.strip_suffix('%') {
        Some(digits) => (digits.trim_end(), true),
        None => (text, false),
    };
    let value = number(digits)?;
    if !percent && value > 0.0 && value < 1.0 {
        return Ok(value);
    }
    let problem = "it is the fraction of weights to prune, above 0 and below 1";
    if value > 0.0 && value < 100.0 && (percent || value > 1.0) {
        // Rounding to six digits hides the error of quotients such as 7 / 100.
        let fraction = (value * 1e4).round() / 1e6;
        return Err(format!("{problem}; did you mean {fraction}?"));
    }
    Err(problem.to_owned())
}

/// A number above zero, in single precision too.
pub(crate) fn positive(text: &str) -> Result<f64, String> {
    single(checked(text, |value| value > 0.0, "it must be above 0")?)
}

/// A number that is zero or more, in single precision too.
pub(crate) fn not_negative(text: &str) -> Result<f64, String> {
    single(checked(text, |value| value >= 0.0, "it must not be negative")?)
}

/// A probability strictly between 0 and 1, in single precision too.
pub(crate) fn open_probability(text: &str) -> Result<f64, String> {
    single(checked(text, |value| value > 0.0 && value < 1.0, "it must be above 0 and below 1")?)
}

/// A whole number from 0 on.
pub(crate) fn whole(text: &str) -> Result<u64, String> {
    within(text, 0..=i64::MAX)
}

/// A number of steps, at least 1.
pub(crate) fn steps(text: &str) -> Result<u64, String> {
    within(text, 1..=i64::MAX)
}

/// A place in a list, counted from 0.
pub(crate) fn index(text: &str) -> Result<usize, String> {
    within(text, 0..=i64::MAX)
}

/// A number of things, at least 1.
pub(crate) fn count(text: &str) -> Result<NonZeroUsize, String> {
    at_least_one(text, i64::MAX)
}

/// A number of threads, or of workers, each of which has a thread at least.
pub(crate) fn threads(text: &str) -> Result<NonZeroUsize, String> {
    at_least_one(text, MOST_THREADS)
}

fn at_least_one(text: &str, most: i64) -> Result<NonZeroUsize, String> {
    let number: usize = within(text, 1..=most)?;
    NonZeroUsize::try_from(number).map_err(|error| error.to_string())
}

/// A whole number of a range. `config.toml` records it, and TOML has signed integers only.
fn within<T: TryFrom<i64>>(text: &str, range: RangeInclusive<i64>) -> Result<T, String> {
    let (least, most) = range.into_inner();
    let outside = || format!("it is a whole number from {least} to {most}");
    match text.parse::<i64>() {
        Ok(number) if number < least => Err(format!("it must be at least {least}")),
        Ok(number) if number <= most => T::try_from(number).map_err(|_| outside()),
        _ => Err(outside()),
    }
}

/// A dropout rate: 0 or more, below 1, in single precision too.
pub(crate) fn dropout(text: &str) -> Result<f64, String> {
    single(checked(text, |value| (0.0..1.0).contains(&value), "it must be at least 0 and below 1")?)
}

/// Any number that is finite in single precision.
pub(crate) fn single_number(text: &str) -> Result<f64, String> {
    single(number(text)?)
}

/// Any finite number.
pub(crate) fn number(text: &str) -> Result<f64, String> {
    checked(text, |_| true, "")
}

/// Refuses what single precision, in which the arithmetic is, turns into another kind of number: a tiny number into 0, a
/// large one into infinity, one just below 1 into 1.
fn single(value: f64) -> Result<f64, String> {
    let rounded = value as f32;
    if !rounded.is_finite() {
        return Err(format!("it must be at most {:e} in size, the largest number in single precision", f32::MAX));
    }
    if rounded == 0.0 && value != 0.0 {
        return Err("in single precision it is 0".to_owned());
    }
    if rounded == 1.0 && value < 1.0 {
        return Err("in single precision it is 1".to_owned());
    }
    Ok(value)
}

fn checked(text: &str, valid: impl FnOnce(f64) -> bool, problem: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if !value.is_finite() => Err("it must be finite".to_owned()),
        Ok(value) if valid(value) => Ok(value),
        Ok(_) => Err(problem.to_owned()),
        Err(_) => Err("it is not a number".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sparsity_is_a_fraction_and_a_percentage_is_explained() {
        assert_eq!(sparsity("0.7"), Ok(0.7));
        for (typed, meant) in [("70", "0.7"), ("70%", "0.7"), ("7", "0.07"), ("0.5%", "0.005"), ("99.9", "0.999")] {
            let error = sparsity(typed).unwrap_err();
            assert!(error.ends_with(&format!("did you mean {meant}?")), "{typed}: {error}");
        }
        for typed in ["0", "1", "-0.5", "100", "nan", "inf", "", "%", "half", "1e400"] {
            let error = sparsity(typed).unwrap_err();
            assert!(!error.contains("did you mean"), "{typed}: {error}");
        }
    }

    #[test]
    fn bounds_of_numbers_are_kept() {
        assert!(positive("0").is_err() && positive("1e-8").is_ok() && positive("nan").is_err());
        assert!(not_negative("0").is_ok() && not_negative("-1e-9").is_err());
        assert!(open_probability("0.15").is_ok() && open_probability("1").is_err());
        assert!(dropout("0").is_ok() && dropout("1").is_err());
        assert!(number("-3.5").is_ok() && number("inf").is_err());
    }

    #[test]
    fn whole_numbers_are_refused_with_the_bound_that_they_pass() {
        let largest = i64::MAX;
        assert_eq!((whole("0"), steps("1"), index("0")), (Ok(0), Ok(1), Ok(0)));
        assert_eq!(count("7").map(usize::from), Ok(7));
        assert_eq!(count(&largest.to_string()).map(usize::from), Ok(largest as usize));
        assert_eq!(threads("1024").map(usize::from), Ok(1024));
        for typed in ["-1", "-9223372036854775808"] {
            assert_eq!(whole(typed), Err("it must be at least 0".to_owned()));
            assert_eq!(index(typed), Err("it must be at least 0".to_owned()));
        }
        for typed in ["-1", "0"] {
            assert_eq!(steps(typed), Err("it must be at least 1".to_owned()));
            assert_eq!(count(typed), Err("it must be at least 1".to_owned()));
            assert_eq!(threads(typed), Err("it must be at least 1".to_owned()));
        }
        for typed in ["18446744073709551615", "9223372036854775808", "1.5", "many", ""] {
            assert_eq!(count(typed), Err(format!("it is a whole number from 1 to {largest}")), "{typed}");
        }
        assert_eq!(threads("1025"), Err("it is a whole number from 1 to 1024".to_owned()));
    }

    #[test]
    fn an_address_has_a_host_and_a_port() {
        for typed in ["127.0.0.1:8080", "localhost:0", "[::1]:65535"] {
            assert_eq!(address(typed), Ok(typed.to_owned()));
        }
        for typed in ["nonsense", "127.0.0.1:99999", "127.0.0.1:x", "127.0.0.1:", ":8080", "::1", "::1:8080x", ""] {
            assert!(address(typed).unwrap_err().contains("a port from 0 to 65535"), "{typed}");
        }
    }

    #[test]
    fn numbers_that_single_precision_turns_into_another_kind_are_refused() {
        for (parse, typed, problem) in [
            (positive as fn(&str) -> _, "1e-46", "in single precision it is 0"),
            (positive, "3.5e38", "at most 3.4028235e38"),
            (not_negative, "1e-300", "in single precision it is 0"),
            (not_negative, "1e39", "the largest number in single precision"),
            (open_probability, "0.99999999", "in single precision it is 1"),
            (open_probability, "1e-50", "in single precision it is 0"),
            (dropout, "0.999999999", "in single precision it is 1"),
            (dropout, "1e-60", "in single precision it is 0"),
            (single_number, "-1e39", "the largest number in single precision"),
            (single_number, "-1e-50", "in single precision it is 0"),
        ] {
            let error = parse(typed).unwrap_err();
            assert!(error.contains(problem), "{typed}: {error}");
        }
        for typed in ["0", "1e-45", "0.1", "0.9999999", "1", "1.0000000001"] {
            assert!(not_negative(typed).is_ok(), "{typed}");
        }
        assert!(dropout("0.9999999").is_ok() && positive("3.4e38").is_ok() && single_number("-0.01").is_ok());
    }

    #[test]
    fn an_initial_mask_that_is_no_keyword_is_a_ticket() {
        assert_eq!(initial_mask("random".into()), Ok(MaskInit::Random));
        assert_eq!(initial_mask("omp/ticket".into()), Ok(MaskInit::Ticket("omp/ticket".into())));
        assert!(initial_mask("".into()).is_err());
        assert_eq!(initial_mask("randm".into()), Err("there is no such file; did you mean random?".to_owned()));
    }
}

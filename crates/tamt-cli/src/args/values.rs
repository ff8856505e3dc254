//! The values that flags take, and how they are read.

use std::path::PathBuf;
use std::str::FromStr;

use clap::ValueEnum;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Precision {
    Auto,
    F32,
    Bf16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kernel {
    Auto,
    Dense,
    Sparse,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum BenchWork {
    /// A step of mask training on masked language modelling
    MaskTraining,
    /// A step of fine-tuning a ticket
    FineTuning,
    /// A forward pass
    Inference,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Method {
    /// Keep weights chosen at random
    Random,
    /// Keep the largest weights (one-shot magnitude pruning)
    Magnitude,
    /// Train, prune the smallest weights, rewind, and again (iterative magnitude pruning)
    Imp,
    /// Train the mask on masked language modelling
    TamtMlm,
    /// Train the mask to keep the hidden states of the dense model
    TamtKd,
    /// Train the mask on the sum of both
    TamtMlmKd,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Preset {
    /// Steps, learning rates and lengths of the paper's published runs
    Paper,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scope {
    /// Every matrix at the same sparsity
    Local,
    /// One ranking over all matrices
    Global,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ScoreInit {
    /// Twice the threshold where the first mask keeps, 0 where it drops
    TwoLevel,
    /// Drawn from an interval above the threshold where the first mask keeps, from one below where it drops
    DoubleUniform,
    /// Drawn from one interval that the threshold cuts at the wanted sparsity, whatever the first mask
    Uniform,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Binarizer {
    /// Keep where the score exceeds the threshold
    Threshold,
    /// Keep where the score is positive
    Sign,
    /// Keep with probability sigmoid(score)
    Bernoulli,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Rewind {
    /// The encoder returns to its pre-trained weights after every pruning
    Pretrained,
    /// Training continues with the weights as they are
    None,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum KdRepresentation {
    /// All layers, all tokens
    Full,
    /// All layers, the first token
    Cls,
    /// The last layer, all tokens
    LastLayer,
    /// No hidden states
    None,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum KdDistance {
    /// 1 - cosine similarity
    Cosine,
    /// Mean squared error
    Mse,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum KdRelation {
    /// No relations
    None,
    /// Between the tokens of a sequence
    Token,
    /// Between the first tokens of the sequences of a batch
    Sample,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum KdRelationLayers {
    /// All layers
    Full,
    /// The last layer
    LastLayer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Optimizer {
    /// Bias-corrected moments, decay apart from the gradient
    Adamw,
    /// No bias correction, decay inside the update
    BertAdam,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Clip {
    /// The norm over all gradients together
    Global,
    /// The norm of each tensor's gradient
    PerTensor,
    /// No clipping
    None,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LrSchedule {
    Constant,
    /// Falls to zero in a straight line
    Linear,
    /// Falls to zero along half a cosine
    Cosine,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TrainableWeights {
    /// Only the MLM head
    Head,
    /// The whole model
    All,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum EvalObjective {
    /// Masked language modelling
    Mlm,
    /// Hidden states against those of the dense model
    Kd,
    /// Both
    All,
}

/// The model of a fine-tuning that is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum KeptModel {
    /// The one with the best score on the development set
    Best,
    /// The last one
    Final,
    /// None: only results and predictions
    None,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Pool {
    /// One vector per token
    None,
    /// The vector of the first token
    Cls,
    /// The mean over the tokens of the text, specials included
    Mean,
}

/// The mask that mask training starts from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum InitialMask {
    Magnitude,
    Random,
    Ticket(PathBuf),
}

impl FromStr for InitialMask {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "" => Err("it is magnitude, random, or a ticket".to_owned()),
            "magnitude" => Ok(Self::Magnitude),
            "random" => Ok(Self::Random),
            path => Ok(Self::Ticket(path.into())),
        }
    }
}

/// The MLM head that `eval` predicts with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum EvalHead {
    Pretrained,
    Ticket,
    File(PathBuf),
}

impl FromStr for EvalHead {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "" => Err("it is pretrained, ticket, or a file".to_owned()),
            "pretrained" => Ok(Self::Pretrained),
            "ticket" => Ok(Self::Ticket),
            path => Ok(Self::File(path.into())),
        }
    }
}

/// Where `encode` reads its texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TextSource {
    Stdin,
    File(PathBuf),
}

impl From<std::ffi::OsString> for TextSource {
    fn from(name: std::ffi::OsString) -> Self {
        if name == "-" { Self::Stdin } else { Self::File(name.into()) }
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
        // Six digits are what anyone types; more would show how 7 / 100 is rounded.
        let fraction = (value * 1e4).round() / 1e6;
        return Err(format!("{problem}; did you mean {fraction}?"));
    }
    Err(problem.to_owned())
}

/// A number above zero.
pub(crate) fn positive(text: &str) -> Result<f64, String> {
    checked(text, |value| value > 0.0, "it must be above 0")
}

/// A number that is zero or more.
pub(crate) fn not_negative(text: &str) -> Result<f64, String> {
    checked(text, |value| value >= 0.0, "it must not be negative")
}

/// A probability strictly between 0 and 1.
pub(crate) fn open_probability(text: &str) -> Result<f64, String> {
    checked(text, |value| value > 0.0 && value < 1.0, "it must be above 0 and below 1")
}

/// A seed. TOML, in which a run's settings are recorded, has signed integers only.
pub(crate) fn seed(text: &str) -> Result<u64, String> {
    match text.parse::<i64>() {
        Ok(value) => u64::try_from(value).map_err(|_| "it must not be negative".to_owned()),
        Err(_) => Err(format!("it is a whole number from 0 to {}", i64::MAX)),
    }
}

/// A number of steps, for flags of which 0 means nothing.
pub(crate) fn steps(text: &str) -> Result<u64, String> {
    match seed(text) {
        Ok(0) => Err("it must be at least 1".to_owned()),
        other => other,
    }
}

/// A dropout rate: 0 or more, below 1.
pub(crate) fn dropout(text: &str) -> Result<f64, String> {
    checked(text, |value| (0.0..1.0).contains(&value), "it must be at least 0 and below 1")
}

/// Any finite number.
pub(crate) fn number(text: &str) -> Result<f64, String> {
    checked(text, |_| true, "")
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
    fn an_initial_mask_that_is_no_keyword_is_a_ticket() {
        assert_eq!("random".parse(), Ok(InitialMask::Random));
        assert_eq!("omp/ticket.safetensors".parse(), Ok(InitialMask::Ticket("omp/ticket.safetensors".into())));
        assert!("".parse::<InitialMask>().is_err());
    }
}

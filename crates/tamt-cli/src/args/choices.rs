//! Flags whose value is one of a few names: each name, its meaning in the library, and its line in `--help`.

use std::ffi::OsStr;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::error::{ContextKind, ContextValue};
use clap::{Arg, Command};
use tamt::Kernel;
use tamt::bench::Work;
use tamt::encode::Pool;
use tamt::evaluate::EvalLosses;
use tamt::find::{Method, Preset, Rewind, paper, short};
use tamt::objective::{Distance, Relation, Representation, Span};
use tamt::predict::OutputFormat;
use tamt::pretrain::Train;
use tamt::prune::{Scope, Sparsity};
use tamt::scores::{Binarizer, ScoreInit};
use tamt::train::{Clip, OptimizerKind, Shape};
use tamt::tune::KeptModel;
use tamt_data::nearest;
use tamt_data::tasks::Format;
use tamt_kernels::Precision;
use tamt_model::Dtype;
use tamt_onnx::Weights;

use crate::args::values::InputFormat;

/// Characters of the shortest part of a name that tells what was meant.
const SHORTEST_PART: usize = 2;

/// The values of a flag, as (name, meaning, help); an empty help is not shown.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Choice<T: 'static>(&'static [(&'static str, T, &'static str)]);

impl<T> Choice<T> {
    /// The names that `typed` may stand for: the nearest one, else those with `typed` among their parts (`kd` in
    /// `tamt-kd`), else those that contain `typed` or are contained in it.
    fn meant(&self, typed: &str) -> Vec<String> {
        let names = || self.0.iter().map(|(name, ..)| *name);
        let typed = typed.to_lowercase().replace('_', "-");
        if let Some(near) = nearest(&typed, names()) {
            return vec![near.to_owned()];
        }
        if typed.len() < SHORTEST_PART {
            return Vec::new();
        }
        let has_part = |name: &str| format!("-{name}-").contains(&format!("-{typed}-"));
        let is_alike = |name: &str| name.contains(&typed) || name.len() >= SHORTEST_PART && typed.contains(name);
        let by_part: Vec<String> = names().filter(|name| has_part(name)).map(str::to_owned).collect();
        if by_part.is_empty() { names().filter(|name| is_alike(name)).map(str::to_owned).collect() } else { by_part }
    }

    fn values(&self) -> impl Iterator<Item = PossibleValue> + use<T> {
        self.0.iter().map(|&(name, _, help)| {
            let value = PossibleValue::new(name);
            if help.is_empty() { value } else { value.help(help) }
        })
    }
}

impl<T: Clone + Send + Sync + 'static> TypedValueParser for Choice<T> {
    type Value = T;

    fn parse_ref(&self, command: &Command, flag: Option<&Arg>, typed: &OsStr) -> Result<T, clap::Error> {
        let parsed = PossibleValuesParser::new(self.values()).parse_ref(command, flag, typed);
        let typed = parsed.map_err(|mut error| {
            let meant = typed.to_str().map_or_else(Vec::new, |typed| self.meant(typed));
            if !meant.is_empty() {
                error.insert(ContextKind::SuggestedValue, ContextValue::Strings(meant));
            }
            error
        })?;
        let chosen = self.0.iter().find(|(name, ..)| *name == typed);
        let (_, meaning, _) = chosen.expect("the parser of possible values accepts these names only");
        Ok(meaning.clone())
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(self.values()))
    }
}

/// The precision of matrix products, which may depend on the processor.
pub(crate) type GetPrecision = fn() -> Precision;

/// The preset for a method and a sparsity.
pub(crate) type GetPreset = fn(Method, Sparsity) -> tamt::Result<Preset>;

pub(crate) const PRECISION: Choice<GetPrecision> =
    Choice(&[("auto", Precision::native, ""), ("f32", || Precision::F32, ""), ("bf16", || Precision::Bf16, "")]);

/// The precision of a packed model's values, which does not depend on the processor.
pub(crate) const PACKED_PRECISION: Choice<GetPrecision> = Choice(&[
    ("bf16", || Precision::Bf16, "Half of the bytes; 8 bits of significand"),
    ("f32", || Precision::F32, "The values of a base in F32, F16 or BF16, unchanged"),
]);

pub(crate) const KERNEL: Choice<Kernel> =
    Choice(&[("auto", Kernel::Auto, ""), ("dense", Kernel::Dense, ""), ("sparse", Kernel::Sparse, "")]);

pub(crate) const BENCH_WORK: Choice<Work> = Choice(&[
    ("mask-training", Work::MaskTraining, "A step of mask training on masked language modelling"),
    ("fine-tuning", Work::FineTuning, "A step of fine-tuning a ticket"),
    ("inference", Work::Inference, "A forward pass"),
]);

pub(crate) const METHOD: Choice<Method> = Choice(&[
    ("random", Method::Random, "Keep weights chosen at random"),
    ("magnitude", Method::Magnitude, "Keep the largest weights (one-shot magnitude pruning)"),
    ("imp", Method::Imp, "Train, prune the smallest weights, rewind, and again (iterative magnitude pruning)"),
    ("tamt-mlm", Method::TamtMlm, "Train the mask on masked language modelling"),
    ("tamt-kd", Method::TamtKd, "Train the mask to keep the hidden states of the dense model"),
    ("tamt-mlm-kd", Method::TamtMlmKd, "Train the mask on the sum of both"),
]);

pub(crate) const PRESET: Choice<GetPreset> = Choice(&[
    ("short", short, "600 steps of 16 x 128 tokens, with learning rates for so few, at any sparsity"),
    ("paper", paper, "Steps, learning rates and lengths of the paper's published runs, at sparsities 0.2, 0.3 to 0.9"),
]);

pub(crate) const SCOPE: Choice<Scope> = Choice(&[
    ("local", Scope::Local, "Every matrix at the same sparsity"),
    ("global", Scope::Global, "One ranking over all matrices"),
]);

pub(crate) const SCORE_INIT: Choice<ScoreInit> = Choice(&[
    ("two-level", ScoreInit::TwoLevel, "Twice the threshold where the first mask keeps, 0 where it drops"),
    (
        "double-uniform",
        ScoreInit::DoubleUniform,
        "Drawn from an interval above the threshold where the first mask keeps, from one below where it drops",
    ),
    (
        "uniform",
        ScoreInit::Uniform,
        "Drawn from one interval that the threshold cuts at the wanted sparsity, whatever the first mask",
    ),
]);

pub(crate) const BINARIZER: Choice<Binarizer> = Choice(&[
    ("threshold", Binarizer::Threshold, "Keep where the score exceeds the threshold"),
    ("sign", Binarizer::Sign, "Keep where the score is positive"),
    ("bernoulli", Binarizer::Bernoulli, "Keep with probability sigmoid(score)"),
]);

pub(crate) const REWIND: Choice<Rewind> = Choice(&[
    ("pretrained", Rewind::Pretrained, "The encoder returns to its pre-trained weights after every pruning"),
    ("none", Rewind::None, "Training continues with the weights as they are"),
]);

pub(crate) const KD_REPRESENTATION: Choice<Representation> = Choice(&[
    ("full", Representation::Full, "All layers, all tokens"),
    ("cls", Representation::Cls, "All layers, the first token"),
    ("last-layer", Representation::LastLayer, "The last layer, all tokens"),
    ("none", Representation::None, "No hidden states"),
]);

pub(crate) const KD_DISTANCE: Choice<Distance> =
    Choice(&[("cosine", Distance::Cosine, "1 - cosine similarity"), ("mse", Distance::Mse, "Mean squared error")]);

pub(crate) const KD_RELATION: Choice<Relation> = Choice(&[
    ("none", Relation::None, "No relations"),
    ("token", Relation::Token, "Between the tokens of a sequence"),
    ("sample", Relation::Sample, "Between the first tokens of the sequences of a batch"),
]);

pub(crate) const KD_RELATION_LAYERS: Choice<Span> =
    Choice(&[("full", Span::Full, "All layers"), ("last-layer", Span::LastLayer, "The last layer")]);

pub(crate) const OPTIMIZER: Choice<OptimizerKind> = Choice(&[
    ("adamw", OptimizerKind::AdamW, "Bias-corrected moments, decay apart from the gradient"),
    ("bert-adam", OptimizerKind::BertAdam, "No bias correction, decay inside the update"),
]);

pub(crate) const CLIP: Choice<Clip> = Choice(&[
    ("global", Clip::Global, "The norm over all gradients together"),
    ("per-tensor", Clip::PerTensor, "The norm of each tensor's gradient"),
    ("none", Clip::None, "No clipping"),
]);

pub(crate) const LR_SCHEDULE: Choice<Shape> = Choice(&[
    ("constant", Shape::Constant, ""),
    ("linear", Shape::Linear, "Falls to zero in a straight line"),
    ("cosine", Shape::Cosine, "Falls to zero along half a cosine"),
]);

pub(crate) const TRAINABLE_WEIGHTS: Choice<Train> =
    Choice(&[("head", Train::Head, "Only the MLM head"), ("all", Train::All, "The whole model")]);

pub(crate) const EVAL_OBJECTIVE: Choice<EvalLosses> = Choice(&[
    ("mlm", EvalLosses { mlm: true, kd: false }, "Masked language modelling"),
    ("kd", EvalLosses { mlm: false, kd: true }, "Hidden states against those of the dense model"),
    ("all", EvalLosses { mlm: true, kd: true }, "Both"),
]);

pub(crate) const KEPT_MODEL: Choice<KeptModel> = Choice(&[
    ("best", KeptModel::Best, "The one with the best score on the development set"),
    ("final", KeptModel::Final, "The last one"),
    ("none", KeptModel::None, "None: only results and predictions"),
]);

pub(crate) const DTYPE: Choice<Dtype> = Choice(&[
    ("f32", Dtype::F32, "Single precision"),
    ("bf16", Dtype::Bf16, "Half of the bits, the exponents of single precision"),
    ("f16", Dtype::F16, "Half precision; weights above 65504 are refused"),
]);

/// The formats that `export` writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExportFormat {
    Onnx,
    TorchMask,
    TorchPrune,
    Transformers,
}

impl ExportFormat {
    /// The name on the command line.
    pub(crate) fn name(self) -> &'static str {
        let named = EXPORT_FORMAT.0.iter().find(|(_, format, _)| *format == self);
        named.map_or("", |(name, ..)| name)
    }
}

pub(crate) const EXPORT_FORMAT: Choice<ExportFormat> = Choice(&[
    ("onnx", ExportFormat::Onnx, "model.onnx with configuration and tokenizer, for ONNX Runtime and OpenVINO"),
    ("torch-mask", ExportFormat::TorchMask, "mask.pt, the reference's file: a boolean tensor for each matrix"),
    (
        "torch-prune",
        ExportFormat::TorchPrune,
        "pytorch_model.bin with weight_orig and weight_mask, as torch.nn.utils.prune",
    ),
    ("transformers", ExportFormat::Transformers, "model.safetensors with the ticket's zeros, all heads included"),
]);

pub(crate) const ONNX_WEIGHTS: Choice<Weights> = Choice(&[
    ("f32", Weights::F32, "Single precision"),
    (
        "int8",
        Weights::Int8,
        "8 bits and a scale for each output; zeros stay zeros, the arithmetic is in single precision",
    ),
]);

pub(crate) const POOL: Choice<Pool> = Choice(&[
    ("none", Pool::None, "One vector per token"),
    ("cls", Pool::Cls, "The vector of the first token"),
    ("mean", Pool::Mean, "The mean over the tokens of the text, specials included"),
]);

/// The poolings that give one vector for a text.
pub(crate) const POOL_OF_TEXT: Choice<Pool> = Choice(&[
    ("cls", Pool::Cls, "The vector of the first token"),
    ("mean", Pool::Mean, "The mean over the tokens of the text, specials included"),
]);

pub(crate) const INPUT_FORMAT: Choice<InputFormat> = Choice(&[
    ("text", InputFormat::Text, "A text a line"),
    ("tsv", InputFormat::Table(Format::Tsv), "Tab-separated values, without quoting"),
    ("csv", InputFormat::Table(Format::Csv), "Comma-separated values, with quoting"),
    ("jsonl", InputFormat::Table(Format::JsonLines), "A JSON object a line"),
    ("squad", InputFormat::Squad, "The structure of SQuAD's JSON"),
]);

pub(crate) const OUTPUT_FORMAT: Choice<OutputFormat> = Choice(&[
    ("tsv", OutputFormat::Tsv, "A line of names, then tab-separated values"),
    ("jsonl", OutputFormat::JsonLines, "A JSON object a line"),
]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_suggested_by_its_spelling_or_by_its_parts() {
        let of_method = |typed: &str| METHOD.meant(typed).join(" ");
        for (typed, meant) in [
            ("kd", "tamt-kd tamt-mlm-kd"),
            ("mlm-kd", "tamt-mlm-kd"),
            ("mlm", "tamt-mlm tamt-mlm-kd"),
            ("magnitud", "magnitude"),
            ("tamt_mlm", "tamt-mlm"),
            ("IMP", "imp"),
            ("tamt", "tamt-mlm tamt-kd tamt-mlm-kd"),
            ("magnitude-pruning", "magnitude"),
            ("oracle", ""),
            ("", ""),
        ] {
            assert_eq!(of_method(typed), meant, "{typed}");
        }
        assert_eq!(EVAL_OBJECTIVE.meant("mml"), ["mlm"]);
        assert_eq!(LR_SCHEDULE.meant("linear-decay"), ["linear"]);
    }
}

//! Which flags of `find` have an effect: the method and a few other flags decide.

use serde::de::DeserializeOwned;
use tamt::find::{MaskInit, Method};
use tamt::objective::{Relation, Representation};
use tamt::scores::{Binarizer, ScoreInit};
use tamt::train::{Clip, Shape};
use toml::Table;

use crate::args::find::FindArgs;
use crate::args::values::START_MASKS;

/// The settings of a search that decide. `None` stands for a default.
#[derive(Debug)]
pub(crate) struct Effects {
    method: Method,
    starts_from_ticket: bool,
    evaluates: bool,
    score_init: Option<ScoreInit>,
    binarizer: Option<Binarizer>,
    representation: Option<Representation>,
    relation: Option<Relation>,
    shape: Option<Shape>,
    clip: Option<Clip>,
}

impl Effects {
    /// The effects beside the flags of a command line.
    pub(crate) fn of(args: &FindArgs) -> Self {
        let (masks, kd, optimizer) = (&args.masks, &args.distillation, &args.training.optimizer);
        Self {
            method: args.method,
            starts_from_ticket: matches!(masks.init, Some(MaskInit::Ticket(_))),
            evaluates: !args.training.eval_corpus.is_empty(),
            score_init: masks.score_init,
            binarizer: masks.binarizer,
            representation: kd.kd_representation,
            relation: kd.kd_relation,
            shape: optimizer.lr_schedule,
            clip: optimizer.clip,
        }
    }

    /// The effects beside the flags of a record; `None` without a method.
    pub(crate) fn of_record(flags: &Table) -> Option<Self> {
        fn value<T: DeserializeOwned>(flags: &Table, name: &str) -> Option<T> {
            flags.get(name)?.clone().try_into().ok()
        }
        let start = flags.get("init").and_then(toml::Value::as_str);
        Some(Self {
            method: value(flags, "method")?,
            starts_from_ticket: start.is_some_and(|start| !START_MASKS.contains(&start)),
            evaluates: flags.contains_key("eval-corpus"),
            score_init: value(flags, "score-init"),
            binarizer: value(flags, "binarizer"),
            representation: value(flags, "kd-representation"),
            relation: value(flags, "kd-relation"),
            shape: value(flags, "lr-schedule"),
            clip: value(flags, "clip"),
        })
    }

    /// Whether the flag `name` has an effect.
    pub(crate) fn has(&self, name: &str) -> bool {
        let Self { method, evaluates, .. } = *self;
        let (trains, trains_masks) = (method.trains(), method.trains_masks());
        let distils = method.objective().kd.is_some();
        let (init, binarizer) = (self.score_init.unwrap_or_default(), self.binarizer.unwrap_or_default());
        let has_random_signs = (init, binarizer) == (ScoreInit::TwoLevel, Binarizer::Sign);
        match name {
            "init" | "score-init" | "binarizer" | "rethreshold-every" | "ticket-steps" => trains_masks,
            "init-scale" => trains_masks && (init == ScoreInit::Uniform || has_random_signs),
            "threshold" => trains_masks && !has_random_signs && binarizer != Binarizer::Bernoulli,
            "freeze-head" => trains_masks && method.uses_mlm(),
            "allow-other-base" => trains_masks && self.starts_from_ticket,
            "kd-weight" | "kd-representation" | "kd-attention" | "kd-relation" => distils,
            "kd-distance" => distils && self.representation != Some(Representation::None),
            "kd-relation-layers" => distils && self.relation.is_some_and(|relation| relation != Relation::None),
            "rewind" | "steps-per-round" => method == Method::Imp,
            "seed" => trains || method == Method::Random,
            "preset" | "block-size" => trains || evaluates,
            "mlm-probability" => method.uses_mlm() || evaluates,
            "eval-every" => trains && evaluates,
            "lr-horizon-steps" => trains && self.shape != Some(Shape::Constant),
            "max-grad-norm" => trains && self.clip != Some(Clip::None),
            "corpus" | "max-steps" | "batch-size" | "dropout" | "save-every" | "save-minutes" | "logging-steps"
            | "optimizer" | "learning-rate" | "lr-schedule" | "warmup-steps" | "weight-decay" | "adam-epsilon"
            | "clip" => trains,
            _ => true,
        }
    }
}

/// The given flags without an effect, without dashes.
pub(crate) fn without_effect(args: &FindArgs) -> Vec<&'static str> {
    let FindArgs { masks: m, distillation: d, pruning: p, training: t, .. } = args;
    let o = &t.optimizer;
    let given = [
        ("corpus", !args.corpus.is_empty()),
        ("max-steps", args.max_steps.is_some()),
        ("preset", args.preset.is_some()),
        ("init", m.init.is_some()),
        ("allow-other-base", args.allow_other_base),
        ("score-init", m.score_init.is_some()),
        ("init-scale", m.init_scale.is_some()),
        ("binarizer", m.binarizer.is_some()),
        ("threshold", m.threshold.is_some()),
        ("rethreshold-every", m.rethreshold_every.is_some()),
        ("ticket-steps", !m.ticket_steps.is_empty()),
        ("freeze-head", m.freeze_head),
        ("kd-weight", d.kd_weight.is_some()),
        ("kd-representation", d.kd_representation.is_some()),
        ("kd-distance", d.kd_distance.is_some()),
        ("kd-attention", d.kd_attention),
        ("kd-relation", d.kd_relation.is_some()),
        ("kd-relation-layers", d.kd_relation_layers.is_some()),
        ("rewind", p.rewind.is_some()),
        ("steps-per-round", p.steps_per_round.is_some()),
        ("batch-size", t.batch_size.is_some()),
        ("block-size", t.block_size.is_some()),
        ("mlm-probability", t.mlm_probability.is_some()),
        ("dropout", t.dropout.is_some()),
        ("seed", t.seed.is_some()),
        ("eval-every", t.eval_every.is_some()),
        ("save-every", t.run.save_every.is_some()),
        ("save-minutes", t.run.save_minutes.is_some()),
        ("logging-steps", t.run.logging_steps.is_some()),
        ("optimizer", o.optimizer.is_some()),
        ("learning-rate", o.learning_rate.is_some()),
        ("lr-schedule", o.lr_schedule.is_some()),
        ("lr-horizon-steps", o.lr_horizon_steps.is_some()),
        ("warmup-steps", o.warmup_steps.is_some()),
        ("weight-decay", o.weight_decay.is_some()),
        ("adam-epsilon", o.adam_epsilon.is_some()),
        ("clip", o.clip.is_some()),
        ("max-grad-norm", o.max_grad_norm.is_some()),
    ];
    let effects = Effects::of(args);
    given.into_iter().filter(|(name, given)| *given && !effects.has(name)).map(|(name, _)| name).collect()
}

//! The plan of a demonstration.

use std::path::Path;

use anyhow::{Context, Result};
use tamt::demo::DemoSettings;
use tamt_files::atomic_write;
use tamt_kernels::Precision;
use toml::{Table, Value};

use crate::args::common::Common;
use crate::args::demo::DemoArgs;

/// The plan in the output directory of a demonstration.
pub(super) const PLAN_FILE: &str = "plan.toml";
/// The runs of the plan.
pub(super) const STUDY_DIR: &str = "study";
/// Their report.
pub(super) const REPORT_DIR: &str = "report";

const PLAN: &str = include_str!("plan.toml");

/// Sections that take the flags of matrix products.
const COMPUTING: [&str; 3] = ["[tickets]\n", "[losses]\n", "[tasks]\n"];

/// The numbers of a demonstration of seconds: tests run the whole course with them.
const TINY: [(&str, i64); 5] =
    [("max-steps", 2), ("steps-per-round", 1), ("train-examples", 8), ("warmup-steps", 0), ("eval-every", 2)];

/// A language and a model for [`TINY`].
pub(super) fn tiny_settings() -> DemoSettings {
    DemoSettings {
        train_tokens: 6000,
        valid_tokens: 1000,
        hidden_size: 16,
        layers: 2,
        heads: 2,
        pretrain_steps: 8,
        task_train: 12,
        task_dev: 6,
        ..DemoSettings::default()
    }
}

/// Writes the plan.
pub(super) fn write(path: &Path, args: &DemoArgs) -> Result<()> {
    let text = text(args)?;
    atomic_write(path, |file| file.write_all(text.as_bytes()))
        .with_context(|| format!("cannot write {}", path.display()))
}

fn text(args: &DemoArgs) -> Result<String> {
    let mut text = if args.tiny { tiny()? } else { PLAN.to_owned() };
    let flags = flags(&args.common);
    for section in COMPUTING {
        text = text.replace(section, &format!("{section}{flags}"));
    }
    Ok(text)
}

/// The flags of matrix products as lines of a plan, where they are given.
fn flags(common: &Common) -> String {
    let kernel = common.kernel.map(|kernel| ("kernel", kernel.name()));
    let precision = match (common.precision)() {
        // The usual precision of each machine, as in any plan that says nothing.
        precision if precision == Precision::native() => None,
        Precision::F32 => Some(("precision", "f32")),
        Precision::Bf16 => Some(("precision", "bf16")),
    };
    precision.into_iter().chain(kernel).map(|(flag, value)| format!("{flag} = \"{value}\"\n")).collect()
}

/// The plan with the numbers of [`TINY`], one sparsity and one seed.
fn tiny() -> Result<String> {
    let mut plan: Table = PLAN.parse().context("the plan of the demonstration is damaged")?;
    shorten(&mut plan);
    // The tickets that are tuned, and one repetition.
    for section in ["tickets", "tasks"] {
        if let Some(grids) = plan.get_mut(section).and_then(|section| section.get_mut("grid")?.as_array_mut()) {
            grids.truncate(1);
        }
    }
    Ok(plan.to_string())
}

fn shorten(table: &mut Table) {
    for (key, value) in table.iter_mut() {
        if let Some((_, number)) = TINY.iter().find(|(name, _)| name == key) {
            *value = Value::Integer(*number);
        }
        match (key.as_str(), value) {
            ("seeds", Value::Array(seeds)) => seeds.truncate(1),
            ("sparsities", Value::Array(sparsities)) => drop(sparsities.drain(..sparsities.len() - 1)),
            ("grid", Value::Array(grids)) => grids.iter_mut().filter_map(Value::as_table_mut).for_each(shorten),
            (_, Value::Table(inner)) => shorten(inner),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sections_that_take_flags_of_products_are_in_the_plan() {
        for section in COMPUTING {
            assert_eq!(PLAN.matches(section).count(), 1, "{section}");
            assert_eq!(tiny().unwrap().matches(section).count(), 1, "{section}");
        }
    }
}

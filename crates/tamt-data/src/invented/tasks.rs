//! Downstream tasks about the invented world, in the files of the real ones.
//!
//! | directory | a model has to tell |
//! |---|---|
//! | `CoLA` | whether a sentence breaks a rule of the grammar |
//! | `SST-2` | whether its author likes what it is about |
//! | `MRPC` | whether two sentences mean the same |
//! | `STS-B` | how many of five parts two meanings share |
//! | `RTE` | whether a sentence follows from one or two |
//! | `squad` | what stands in a passage at the place that is left out of a sentence |
//!
//! Labels come from meanings, never from the words that were put in. Texts say themselves which split they belong to, so
//! that none is in two of them.

use std::fs;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::change::{Part, bare, changed, entails, weakened};
use super::draw::Draw;
use super::lexicon::Polarity;
use super::meaning::{Predicate, Sentence};
use super::realise::{Slip, Style, realise, text};
use super::{QUESTIONS, Split, TASKS, World, questions, write_error};
use crate::{Error, Result};

/// How many examples, and for span questions passages, are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskSizes {
    /// To train on.
    pub train: usize,
    /// To choose and report by.
    pub dev: usize,
    /// Without labels.
    pub test: usize,
}

impl TaskSizes {
    fn of(self, split: Split) -> usize {
        match split {
            Split::Train => self.train,
            Split::Valid => self.dev,
            Split::Test => self.test,
        }
    }
}

/// A text or two, and their label.
type Example = (Vec<String>, String);

/// How a task's files look.
struct Layout {
    folder: &'static str,
    /// Lines before the examples: with labels, without.
    headers: [&'static str; 2],
    /// `{i}` stands for the example's number, `{a}` and `{b}` for the texts, `{label}` for the label.
    rows: [&'static str; 2],
    example: fn(&World, &mut Draw) -> Example,
}

const LAYOUTS: [Layout; 5] = [
    Layout {
        folder: "CoLA",
        headers: ["", "index\tsentence\n"],
        rows: ["world\t{label}\t\t{a}\n", "{i}\t{a}\n"],
        example: acceptability,
    },
    Layout {
        folder: "SST-2",
        headers: ["sentence\tlabel\n", "index\tsentence\n"],
        rows: ["{a}\t{label}\n", "{i}\t{a}\n"],
        example: sentiment,
    },
    Layout {
        folder: "MRPC",
        headers: ["Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n", "index\t#1 ID\t#2 ID\t#1 String\t#2 String\n"],
        rows: ["{label}\t{i}\t{i}\t{a}\t{b}\n", "{i}\t{i}\t{i}\t{a}\t{b}\n"],
        example: paraphrase,
    },
    Layout {
        folder: "STS-B",
        headers: [
            "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore\n",
            "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\n",
        ],
        rows: [
            "{i}\tworld\tworld\t0\t{i}\tnone\tnone\t{a}\t{b}\t{label}\n",
            "{i}\tworld\tworld\t0\t{i}\tnone\tnone\t{a}\t{b}\n",
        ],
        example: similarity,
    },
    Layout {
        folder: "RTE",
        headers: ["index\tsentence1\tsentence2\tlabel\n", "index\tsentence1\tsentence2\n"],
        rows: ["{i}\t{a}\t{b}\t{label}\n", "{i}\t{a}\t{b}\n"],
        example: entailment,
    },
];

impl World {
    /// Writes `CoLA`, `SST-2`, `MRPC`, `STS-B`, `RTE` (train, dev and test) and `squad` (train and dev) into `dir`, in
    /// the files of the tasks of these names. An example depends on the world, the seed, its split and its number.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn write_tasks(&self, dir: &Path, sizes: TaskSizes, seed: u64) -> Result<()> {
        let write = |folder: &str, name: &str, content: String| {
            let folder = dir.join(folder);
            fs::create_dir_all(&folder).map_err(|source| Error::Io {
                action: "create",
                path: folder.clone(),
                source,
            })?;
            let path = folder.join(name);
            fs::write(&path, content).map_err(write_error(&path))
        };
        for (task, layout) in LAYOUTS.iter().enumerate() {
            for (split, name) in [(Split::Train, "train.tsv"), (Split::Valid, "dev.tsv"), (Split::Test, "test.tsv")] {
                let site = TASKS + 3 * task as u32 + split as u32;
                write(layout.folder, name, self.table(layout, site, seed, split, sizes.of(split)))?;
            }
        }
        for (split, name) in [(Split::Train, "train-v1.1.json"), (Split::Valid, "dev-v1.1.json")] {
            let site = QUESTIONS + split as u32;
            write("squad", name, questions::json(self, site, seed, split, sizes.of(split)))?;
        }
        Ok(())
    }

    fn table(&self, layout: &Layout, site: u32, seed: u64, split: Split, n: usize) -> String {
        let form = usize::from(split == Split::Test);
        let mut table = layout.headers[form].to_owned();
        for i in 0..n {
            let draw = &mut Draw::new(seed, site, i as u64);
            let (texts, label) = of_split(split, || (layout.example)(self, draw), |(texts, _)| texts.join("\t"));
            let row = layout.rows[form]
                .replace("{i}", &i.to_string())
                .replace("{label}", &label)
                .replace("{a}", &texts[0])
                .replace("{b}", texts.get(1).map_or("", String::as_str));
            table += &row;
        }
        table
    }
}

/// The first thing made whose text belongs to `split`: of ten texts eight are of the training set, one is of the dev and
/// one of the test set.
pub(super) fn of_split<T>(split: Split, mut make: impl FnMut() -> T, text: impl Fn(&T) -> String) -> T {
    loop {
        let made = make();
        let of = match Sha256::digest(text(&made))[0] % 10 {
            0..8 => Split::Train,
            8 => Split::Valid,
            _ => Split::Test,
        };
        if of == split {
            return made;
        }
    }
}

/// A sentence of some passage that is of the wanted sort.
fn sentence(world: &World, draw: &mut Draw, wanted: impl Fn(&Sentence) -> bool) -> Sentence {
    // Every sort asked for is in one of a few passages.
    loop {
        let mut sentences = super::passage::passage(world, draw);
        sentences.retain(&wanted);
        if !sentences.is_empty() {
            return sentences.swap_remove(draw.below(sentences.len()));
        }
    }
}

fn say(world: &World, sentence: &Sentence, style: Style, draw: &mut Draw) -> String {
    text(&realise(world, sentence, style, draw))
}

fn say_somehow(world: &World, sentence: &Sentence, draw: &mut Draw) -> String {
    let style = Style::random(draw);
    say(world, sentence, style, draw)
}

fn acceptability(world: &World, draw: &mut Draw) -> Example {
    let sentence = sentence(world, draw, |_| true);
    let slips = [Slip::Number, Slip::Gender, Slip::Tense, Slip::Order];
    let slips: Vec<Slip> = slips.into_iter().filter(|&slip| sentence.admits(slip)).collect();
    let wrong = draw.percent(50);
    let slip = wrong.then(|| draw.pick(&slips));
    let style = Style { slip, ..Style::random(draw) };
    (vec![say(world, &sentence, style, draw)], u8::from(!wrong).to_string())
}

/// A judgement, and in half of the cases another sentence of its passage, which is in the same mood.
fn sentiment(world: &World, draw: &mut Draw) -> Example {
    loop {
        let sentences = super::passage::passage(world, draw);
        let Some((at, liked)) = sentences.iter().enumerate().find_map(|(i, s)| Some((i, judgement(world, s)?))) else {
            continue;
        };
        let from = if draw.percent(50) { at.saturating_sub(1) } else { at };
        let said: Vec<String> = sentences[from..=at].iter().map(|s| say_somehow(world, s, draw)).collect();
        return (vec![said.join(" ")], u8::from(liked).to_string());
    }
}

/// Whether a sentence praises (or denies blame) or blames (or denies praise); none if it is no judgement.
fn judgement(world: &World, sentence: &Sentence) -> Option<bool> {
    let Predicate::Quality { adjective, .. } = sentence.predicate else {
        return None;
    };
    match world.lexicon().adjectives[adjective.0].polarity {
        Polarity::Good => Some(!sentence.negated),
        Polarity::Bad => Some(sentence.negated),
        Polarity::Plain => None,
    }
}

/// A meaning in other words, or a meaning that differs in one thing or two in other words.
fn paraphrase(world: &World, draw: &mut Draw) -> Example {
    let same = draw.percent(50);
    loop {
        let first = bare(&sentence(world, draw, |_| true));
        let second = if same { first.clone() } else { different(world, &first, draw) };
        let a = say_somehow(world, &first, draw);
        // The same words would be no paraphrase, and some meanings have few others.
        if let Some(b) = (0..8).map(|_| say_somehow(world, &second, draw)).find(|b| *b != a) {
            return (vec![a, b], u8::from(same).to_string());
        }
    }
}

/// The meaning with one part or two of another sort, or denied.
fn different(world: &World, sentence: &Sentence, draw: &mut Draw) -> Sentence {
    if !draw.percent(15) {
        let mut different = None;
        for _ in 0..1 + draw.below(2) {
            let part = draw.pick(&Part::ALL);
            different = changed(world, different.as_ref().unwrap_or(sentence), part, draw).or(different);
        }
        // The same part changed twice may be what it was.
        if let Some(different) = different.filter(|different| different != sentence) {
            return different;
        }
    }
    Sentence { negated: !sentence.negated, ..sentence.clone() }
}

/// Two meanings that share none to five of who does what to what, where and when.
fn similarity(world: &World, draw: &mut Draw) -> Example {
    let lexicon = world.lexicon();
    let whole = |s: &Sentence| {
        let event = matches!(s.predicate, Predicate::Act { verb, object: Some(_) } if !lexicon.verbs[verb.0].objects.is_empty());
        event && s.place.is_some() && !s.negated
    };
    let first = bare(&sentence(world, draw, whole));
    let mut parts = Part::ALL.to_vec();
    for _ in 0..draw.below(parts.len() + 1) {
        parts.swap_remove(draw.below(parts.len()));
    }
    // What is left in `parts` is changed.
    let mut second = first.clone();
    let mut shared = Part::ALL.len();
    for part in parts {
        if let Some(other) = changed(world, &second, part, draw) {
            second = other;
            shared -= 1;
        }
    }
    let texts = vec![say_somehow(world, &first, draw), say_somehow(world, &second, draw)];
    (texts, format!("{shared}.000"))
}

/// A sentence or two, and one that follows from one of them, or from neither.
fn entailment(world: &World, draw: &mut Draw) -> Example {
    let follows = draw.percent(50);
    loop {
        let mut premises = super::passage::passage(world, draw);
        premises.truncate(2);
        let told = &premises[draw.below(premises.len())];
        let mut hypothesis = weakened(told, draw);
        if !follows {
            hypothesis = different(world, &hypothesis, draw);
            // Something else that was told may say just that.
            if premises.iter().any(|premise| entails(premise, &hypothesis)) {
                continue;
            }
        }
        let said: Vec<String> = premises.iter().map(|premise| say_somehow(world, premise, draw)).collect();
        let label = if follows { "entailment" } else { "not_entailment" };
        return (vec![said.join(" "), say_somehow(world, &hypothesis, draw)], label.to_owned());
    }
}

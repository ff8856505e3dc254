//! Downstream tasks about the invented world, in the file formats of the real tasks.
//!
//! | directory | the model predicts |
//! |---|---|
//! | `CoLA` | whether a sentence violates a rule of agreement |
//! | `SST-2` | whether a sentence praises or blames |
//! | `MRPC` | whether two sentences have the same meaning |
//! | `STS-B` | the number of parts, of five, that two meanings share |
//! | `RTE` | whether one or two sentences entail another |
//! | `Topic` | the theme of a sentence, one of ten |
//! | `squad` | the phrase of a context that a question omits |
//!
//! `Topic` is in no benchmark: the task file `topic.toml` beside its data declares the task.
//!
//! Labels follow from meanings, not from words. A hash of the text determines the split, so the splits share no text.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Result, io_error};
use crate::invented::change::{Part, bare, changed, entails, weakened};
use crate::invented::draw::Draw;
use crate::invented::grammar::{Polarity, THEMES, Theme};
use crate::invented::meaning::{Entity, Predicate, Sentence};
use crate::invented::paragraph::sentences;
use crate::invented::questions;
use crate::invented::realise::{Slip, Style, realise, text};
use crate::invented::site;
use crate::invented::split::Split;
use crate::invented::world::World;
use crate::write::atomic_write;

/// Number of examples per split; for span questions, number of contexts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskSizes {
    /// The training set.
    pub train: usize,
    /// The development set.
    pub dev: usize,
    /// The test set, without labels.
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

/// One or two texts, and their label.
type LabelledTexts = (Vec<String>, String);

/// The TSV files of a task.
struct TaskFiles {
    folder: &'static str,
    /// The header of files with labels, and of files without.
    headers: [&'static str; 2],
    /// The row of files with labels, and of files without. `{i}` stands for the example's number, `{a}` and `{b}` for the
    /// texts, `{label}` for the label.
    rows: [&'static str; 2],
    generate: fn(&World, &mut Draw) -> LabelledTexts,
}

const TASKS: [TaskFiles; 6] = [
    TaskFiles {
        folder: "CoLA",
        headers: ["", "index\tsentence\n"],
        rows: ["world\t{label}\t\t{a}\n", "{i}\t{a}\n"],
        generate: acceptability,
    },
    TaskFiles {
        folder: "SST-2",
        headers: ["sentence\tlabel\n", "index\tsentence\n"],
        rows: ["{a}\t{label}\n", "{i}\t{a}\n"],
        generate: sentiment,
    },
    TaskFiles {
        folder: "MRPC",
        headers: ["Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n", "index\t#1 ID\t#2 ID\t#1 String\t#2 String\n"],
        rows: ["{label}\t{i}\t{i}\t{a}\t{b}\n", "{i}\t{i}\t{i}\t{a}\t{b}\n"],
        generate: paraphrase,
    },
    TaskFiles {
        folder: "STS-B",
        headers: [
            "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore\n",
            "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\n",
        ],
        rows: [
            "{i}\tworld\tworld\t0\t{i}\tnone\tnone\t{a}\t{b}\t{label}\n",
            "{i}\tworld\tworld\t0\t{i}\tnone\tnone\t{a}\t{b}\n",
        ],
        generate: similarity,
    },
    TaskFiles {
        folder: "RTE",
        headers: ["index\tsentence1\tsentence2\tlabel\n", "index\tsentence1\tsentence2\n"],
        rows: ["{i}\t{a}\t{b}\t{label}\n", "{i}\t{a}\t{b}\n"],
        generate: entailment,
    },
    TaskFiles {
        folder: "Topic",
        headers: ["sentence\tlabel\n", "index\tsentence\n"],
        rows: ["{a}\t{label}\n", "{i}\t{a}\n"],
        generate: topic,
    },
];

impl World {
    /// The files of `CoLA`, `SST-2`, `MRPC`, `STS-B`, `RTE`, `Topic` (train, dev and test) and `squad` (train and dev),
    /// by folder and name, in the formats of the real tasks. An example is a function of the world, the seed, its split
    /// and its number.
    pub fn task_files(&self, sizes: TaskSizes, seed: u64) -> Vec<(PathBuf, String)> {
        let mut files = Vec::new();
        let mut add = |folder: &str, name: &str, content| files.push((Path::new(folder).join(name), content));
        for (i, task) in TASKS.iter().enumerate() {
            for (split, name) in [(Split::Train, "train.tsv"), (Split::Valid, "dev.tsv"), (Split::Test, "test.tsv")] {
                let site = site::TASKS + 3 * i as u32 + split as u32;
                add(task.folder, name, self.table(task, site, seed, split, sizes.of(split)));
            }
        }
        add("Topic", "topic.toml", topic_file());
        for (split, name) in [(Split::Train, "train-v1.1.json"), (Split::Valid, "dev-v1.1.json")] {
            let site = site::QUESTIONS + split as u32;
            add("squad", name, questions::json(self, site, seed, split, sizes.of(split)));
        }
        files
    }

    /// Writes [`World::task_files`] into `dir`.
    ///
    /// # Errors
    ///
    /// [`Error::Io`](crate::Error::Io).
    pub fn write_tasks(&self, dir: &Path, sizes: TaskSizes, seed: u64) -> Result<()> {
        for (name, content) in self.task_files(sizes, seed) {
            let path = dir.join(name);
            let folder = path.parent().unwrap_or(dir);
            fs::create_dir_all(folder).map_err(io_error("create", folder))?;
            atomic_write(&path, |out| out.write_all(content.as_bytes()))?;
        }
        Ok(())
    }

    fn table(&self, task: &TaskFiles, site: u32, seed: u64, split: Split, n: usize) -> String {
        let unlabelled = usize::from(split == Split::Test);
        let mut table = task.headers[unlabelled].to_owned();
        for i in 0..n {
            let draw = &mut Draw::new(seed, site, i as u64);
            let (texts, label) = split.first(|| (task.generate)(self, draw), |(texts, _)| texts.join("\t"));
            let row = task.rows[unlabelled]
                .replace("{i}", &i.to_string())
                .replace("{label}", &label)
                .replace("{a}", &texts[0])
                .replace("{b}", texts.get(1).map_or("", String::as_str));
            table += &row;
        }
        table
    }
}

/// A random sentence that satisfies a condition. Few paragraphs suffice for each condition in use.
fn sentence(world: &World, draw: &mut Draw, condition: impl Fn(&Sentence) -> bool) -> Sentence {
    loop {
        let mut sentences = sentences(world, draw);
        sentences.retain(&condition);
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

/// A sentence, in half of the cases with a slip of agreement: a verb of the wrong number, or words of the wrong gender. The
/// label is 1 without a slip, else 0. Only knowledge of the words tells their gender; a wrong order or tense would show
/// without any.
fn acceptability(world: &World, draw: &mut Draw) -> LabelledTexts {
    const SLIPS: [Slip; 2] = [Slip::Number, Slip::Gender];
    let sentence = sentence(world, draw, |sentence| SLIPS.iter().all(|&slip| sentence.admits(slip)));
    let wrong = draw.percent(50);
    let slip = wrong.then(|| draw.pick(&SLIPS));
    let style = Style { slip, ..Style::random(draw) };
    (vec![say(world, &sentence, style, draw)], u8::from(!wrong).to_string())
}

/// A judgement, in half of the cases after the preceding sentence of its paragraph. The label is 1 for praise, 0 for blame.
fn sentiment(world: &World, draw: &mut Draw) -> LabelledTexts {
    loop {
        let sentences = sentences(world, draw);
        let Some((at, liked)) = sentences.iter().enumerate().find_map(|(i, s)| Some((i, judgement(world, s)?))) else {
            continue;
        };
        let from = if draw.percent(50) { at.saturating_sub(1) } else { at };
        let texts: Vec<String> = sentences[from..=at].iter().map(|s| say_somehow(world, s, draw)).collect();
        return (vec![texts.join(" ")], u8::from(liked).to_string());
    }
}

/// True if a sentence praises or negates blame, false if it blames or negates praise, `None` if it does neither.
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

/// Two different wordings: of one meaning (label 1), or of two meanings that differ in one or two parts (label 0).
fn paraphrase(world: &World, draw: &mut Draw) -> LabelledTexts {
    let same = draw.percent(50);
    loop {
        let first = bare(&sentence(world, draw, |_| true));
        let second = if same { first.clone() } else { different(world, &first, draw) };
        let a = say_somehow(world, &first, draw);
        // Equal texts are no paraphrases. Some meanings have few wordings, so the search is bounded.
        if let Some(b) = (0..8).map(|_| say_somehow(world, &second, draw)).find(|b| *b != a) {
            return (vec![a, b], u8::from(same).to_string());
        }
    }
}

/// The sentence with one or two parts changed, or negated.
fn different(world: &World, sentence: &Sentence, draw: &mut Draw) -> Sentence {
    if !draw.percent(15) {
        let mut different = None;
        for _ in 0..1 + draw.below(2) {
            let part = draw.pick(&Part::ALL);
            different = changed(world, different.as_ref().unwrap_or(sentence), part, draw).or(different);
        }
        // The second change may undo the first.
        if let Some(different) = different.filter(|different| different != sentence) {
            return different;
        }
    }
    Sentence { negated: !sentence.negated, ..sentence.clone() }
}

/// Two meanings that share zero to five of the five parts. The label is the number of shared parts.
fn similarity(world: &World, draw: &mut Draw) -> LabelledTexts {
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
    // `parts` holds the parts to change.
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

/// One or two sentences as premises, and a hypothesis that one of them entails, or that none entails.
fn entailment(world: &World, draw: &mut Draw) -> LabelledTexts {
    let follows = draw.percent(50);
    loop {
        let mut premises = sentences(world, draw);
        premises.truncate(2);
        let premise = &premises[draw.below(premises.len())];
        let mut hypothesis = weakened(premise, draw);
        if !follows {
            hypothesis = different(world, &hypothesis, draw);
            // Another premise may entail the changed hypothesis.
            if premises.iter().any(|premise| entails(premise, &hypothesis)) {
                continue;
            }
        }
        let texts: Vec<String> = premises.iter().map(|premise| say_somehow(world, premise, draw)).collect();
        let label = if follows { "entailment" } else { "not_entailment" };
        return (vec![texts.join(" "), say_somehow(world, &hypothesis, draw)], label.to_owned());
    }
}

/// A sentence about an action on a thing, both of one theme. The label is the theme.
fn topic(world: &World, draw: &mut Draw) -> LabelledTexts {
    loop {
        let sentence = sentence(world, draw, |sentence| theme(world, sentence).is_some());
        if let Some(theme) = theme(world, &sentence) {
            return (vec![say_somehow(world, &sentence, draw)], label_of(theme));
        }
    }
}

/// The common theme of an action and of the thing that the action is done to. The statement of a fact has none.
fn theme(world: &World, sentence: &Sentence) -> Option<Theme> {
    let lexicon = world.lexicon();
    let (Predicate::Act { verb, .. }, Entity::Thing(noun)) = (&sentence.predicate, sentence.object()?.entity) else {
        return None;
    };
    let states_fact = lexicon.verbs[verb.0].objects.is_empty();
    let theme = lexicon.theme(noun);
    (!states_fact && lexicon.suits(*verb, theme)).then_some(theme)
}

fn label_of(theme: Theme) -> String {
    format!("theme-{}", theme.0)
}

/// The task file of `Topic`.
fn topic_file() -> String {
    let labels: Vec<String> = (0..THEMES).map(|theme| format!("\"{}\"", label_of(Theme(theme)))).collect();
    format!(
        "name = \"topic\"\nkind = \"classification\"\nlabels = [{}]\n\n\
         [files]\ntrain = \"train.tsv\"\ndev = \"dev.tsv\"\ntest = \"test.tsv\"\n\n\
         [columns]\nfirst = \"sentence\"\nlabel = \"label\"\n",
        labels.join(", ")
    )
}

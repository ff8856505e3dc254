//! The scores, losses and tickets of all runs, by what they are about.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;

use tamt_files::digest::sha256_file;
use tamt_study::labels::Labels;
use tamt_study::record::TICKET_FILE;

use crate::names::{Level, Method, Task, draws};
use crate::run::{Kind, LeftOut, Run};
use crate::variants::{first_digits, identity, variants};

/// A ticket, or the dense model.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TicketKey {
    /// Name of the base model.
    pub base: String,
    /// The method.
    pub method: Method,
    /// The sparsity.
    pub level: Level,
    /// Optimiser steps of the search.
    pub steps: u64,
    /// The seed of the search; `None` for a ticket that has none.
    pub seed: Option<u64>,
}

/// A score of a fine-tuned model.
#[derive(Clone, Debug)]
pub struct Score {
    /// The run.
    pub run: usize,
    /// The ticket that was fine-tuned.
    pub ticket: TicketKey,
    /// The task.
    pub task: Task,
    /// Number of training examples.
    pub examples: u64,
    /// The seed of fine-tuning.
    pub seed: Option<u64>,
    /// The score in percent points.
    pub value: f64,
}

/// Losses of a ticket on held-out text.
#[derive(Clone, Debug)]
pub struct Loss {
    /// The run.
    pub run: usize,
    /// The ticket.
    pub ticket: TicketKey,
    /// MLM loss, in nats a token.
    pub mlm: Option<f64>,
    /// KD loss, one minus the cosine to the dense model's hidden states.
    pub kd: Option<f64>,
}

/// A ticket file.
#[derive(Clone, Debug)]
pub struct TicketFile {
    /// The run that found the ticket.
    pub run: usize,
    /// The ticket.
    pub ticket: TicketKey,
    /// The file; `None` where the run has no directory.
    pub path: Option<PathBuf>,
}

/// Everything that a report shows.
#[derive(Debug)]
pub struct Study {
    /// Name of the study, or of the directory.
    pub name: String,
    /// The runs, by which all else refers to them.
    pub runs: Vec<Run>,
    /// Runs that no table has.
    pub left_out: Vec<LeftOut>,
    /// Scores of all fine-tuning runs.
    pub scores: Vec<Score>,
    /// Losses of all tickets and dense models.
    pub losses: Vec<Loss>,
    /// Tickets with their files.
    pub tickets: Vec<TicketFile>,
    main_steps: HashMap<(String, Method, Level), u64>,
    main_examples: HashMap<(String, Task), u64>,
}

impl Study {
    /// Sorts out what the runs measured. A run that repeats another is left out.
    #[must_use]
    pub fn new(name: String, mut runs: Vec<Run>, mut left_out: Vec<LeftOut>) -> Self {
        leave_out_repetitions(&mut runs, &mut left_out);
        let variants = variants(&runs);
        let searches = Searches::of(&runs);
        let ticket = |i: usize| match runs[i].kind {
            Kind::Find => ticket_key(&runs[i], &variants[i]),
            _ => ticket_key(&runs[i], &searches.variant(&runs[i], &variants)),
        };
        let mut study = Self {
            name,
            scores: Vec::new(),
            losses: Vec::new(),
            tickets: Vec::new(),
            main_steps: HashMap::new(),
            main_examples: HashMap::new(),
            left_out,
            runs: Vec::new(),
        };
        for (i, run) in runs.iter().enumerate() {
            match run.kind {
                Kind::Tune => study.scores.extend(score(i, run, ticket(i), &variants[i])),
                Kind::Losses => study.losses.push(loss(i, run, ticket(i))),
                Kind::Find => {
                    let path = run.directory.as_ref().map(|directory| directory.join(TICKET_FILE));
                    study.tickets.push(TicketFile { run: i, ticket: ticket(i), path });
                }
                Kind::Pretrain => {}
            }
        }
        study.tickets_on_the_way(&runs, &searches);
        // What a search measured at its end counts where no run measured it again.
        let measured: BTreeSet<TicketKey> = study.losses.iter().map(|loss| loss.ticket.clone()).collect();
        for file in study.tickets.iter().filter(|file| !measured.contains(&file.ticket)) {
            let loss = loss(file.run, &runs[file.run], file.ticket.clone());
            study.losses.extend((loss.mlm.is_some() || loss.kd.is_some()).then_some(loss));
        }
        study.runs = runs;
        study.choose_main();
        study
    }

    /// Adds the tickets that searches wrote ahead of their end, and that other runs name: `NAME/step-200`.
    fn tickets_on_the_way(&mut self, runs: &[Run], searches: &Searches) {
        let losses = self.losses.iter().map(|loss| (loss.run, &loss.ticket));
        let used = self.scores.iter().map(|score| (score.run, &score.ticket)).chain(losses);
        let mut known: BTreeSet<TicketKey> = self.tickets.iter().map(|file| file.ticket.clone()).collect();
        let mut added = Vec::new();
        for (run, ticket) in used {
            let Some((_, folder)) = runs[run].labels.ticket.as_deref().and_then(|name| name.split_once('/')) else {
                continue;
            };
            let Some(search) = searches.search(&runs[run]) else { continue };
            let Some(directory) = &runs[search].directory else { continue };
            let path = directory.join(folder).join(TICKET_FILE);
            if path.exists() && known.insert(ticket.clone()) {
                added.push(TicketFile { run: search, ticket: ticket.clone(), path: Some(path) });
            }
        }
        self.tickets.extend(added);
    }

    /// Chooses the steps and the numbers of examples that the main tables show: those of most runs, the larger one of
    /// two.
    fn choose_main(&mut self) {
        let mut steps: BTreeMap<_, BTreeMap<u64, usize>> = BTreeMap::new();
        let scored = self.scores.iter().map(|score| (&score.ticket, 1000));
        for (ticket, weight) in scored.chain(self.losses.iter().map(|loss| (&loss.ticket, 1))) {
            let key = (ticket.base.clone(), ticket.method.clone(), ticket.level);
            *steps.entry(key).or_default().entry(ticket.steps).or_default() += weight;
        }
        let mut examples: BTreeMap<_, BTreeMap<u64, usize>> = BTreeMap::new();
        for score in &self.scores {
            let key = (score.ticket.base.clone(), score.task.clone());
            *examples.entry(key).or_default().entry(score.examples).or_default() += 1;
        }
        let most = |counts: BTreeMap<u64, usize>| {
            counts.into_iter().max_by_key(|&(value, n)| (n, value)).unwrap_or_default().0
        };
        self.main_steps = steps.into_iter().map(|(key, counts)| (key, most(counts))).collect();
        self.main_examples = examples.into_iter().map(|(key, counts)| (key, most(counts))).collect();
    }

    /// Whether the main tables show this ticket, and not a ticket of fewer steps of the same search.
    #[must_use]
    pub fn is_main(&self, ticket: &TicketKey) -> bool {
        let key = (ticket.base.clone(), ticket.method.clone(), ticket.level);
        self.main_steps.get(&key).is_none_or(|steps| *steps == ticket.steps)
    }

    /// Whether a score is of the number of examples that the main tables show.
    #[must_use]
    pub fn has_main_examples(&self, score: &Score) -> bool {
        let key = (score.ticket.base.clone(), score.task.clone());
        self.main_examples.get(&key).is_none_or(|examples| *examples == score.examples)
    }

    /// The scores of the main tables.
    pub fn main_scores(&self) -> impl Iterator<Item = &Score> {
        self.scores.iter().filter(|score| self.is_main(&score.ticket) && self.has_main_examples(score))
    }

    /// The names of base models, sorted.
    #[must_use]
    pub fn bases(&self) -> Vec<String> {
        let scored = self.scores.iter().map(|score| &score.ticket);
        let all = scored.chain(self.losses.iter().map(|loss| &loss.ticket));
        let all = all.chain(self.tickets.iter().map(|file| &file.ticket));
        all.map(|ticket| ticket.base.clone()).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// All methods, in the order of tables.
    #[must_use]
    pub fn methods(&self) -> Vec<Method> {
        let scored = self.scores.iter().map(|score| &score.ticket);
        let all = scored.chain(self.losses.iter().map(|loss| &loss.ticket));
        let all = all.chain(self.tickets.iter().map(|file| &file.ticket));
        all.map(|ticket| ticket.method.clone()).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Two runs that measured the same by all that is known of them: a ticket on a task with one seed, or two tickets that
    /// only their names tell apart.
    #[must_use]
    pub fn indistinct(&self) -> Option<[&str; 2]> {
        let mut tickets: HashMap<&TicketKey, usize> = HashMap::new();
        let mut tunings = HashMap::new();
        let of_ticket = |run: usize| &self.runs[run].labels.ticket;
        let losses = self.losses.iter().filter(|loss| self.runs[loss.run].kind == Kind::Losses);
        let repeated = self.scores.iter().find_map(|score| {
            let first = tunings.insert((&score.ticket, &score.task, score.examples, score.seed), score.run)?;
            Some([first, score.run])
        });
        let mut named =
            losses.map(|loss| (&loss.ticket, loss.run)).chain(self.scores.iter().map(|s| (&s.ticket, s.run)));
        let alike = || {
            named.find_map(|(ticket, run)| {
                let first = *tickets.entry(ticket).or_insert(run);
                (of_ticket(first) != of_ticket(run)).then_some([first, run])
            })
        };
        let found = repeated.or_else(alike)?;
        Some(found.map(|run| self.runs[run].name.as_str()))
    }

    /// The metric of a task's scores.
    #[must_use]
    pub fn metric(&self, task: &Task) -> &str {
        let score = self.scores.iter().find(|score| score.task == *task);
        score.and_then(|score| self.runs[score.run].metric()).unwrap_or_default()
    }
}

/// The searches of a report, as the runs of their tickets name them.
struct Searches {
    /// Directories of searches with their positions, by the names of the directories.
    named: HashMap<String, Vec<(Option<PathBuf>, usize)>>,
    /// Digests of tickets that were looked at, by path.
    digests: RefCell<HashMap<PathBuf, Option<String>>>,
    /// Digests of tickets whose search is no part of the report, by what is known of the tickets.
    unknown: HashMap<String, BTreeSet<String>>,
}

/// What a run without its search says of its ticket.
fn known_of_ticket(run: &Run) -> String {
    format!("{:?}", Labels { ticket: None, task: None, seed: None, train_examples: None, ..run.labels.clone() })
}

impl Searches {
    fn of(runs: &[Run]) -> Self {
        let mut named: HashMap<String, Vec<(Option<PathBuf>, usize)>> = HashMap::new();
        for (i, run) in runs.iter().enumerate().filter(|(_, run)| run.kind == Kind::Find) {
            named.entry(run.search_name().to_owned()).or_default().push((run.directory.clone(), i));
        }
        let searches = Self { named, digests: RefCell::default(), unknown: HashMap::new() };
        let mut unknown: HashMap<String, BTreeSet<String>> = HashMap::new();
        for run in runs.iter().filter(|run| run.kind != Kind::Find && searches.search(run).is_none()) {
            if let Some(digest) = run.settings.get(TICKET_DIGEST) {
                unknown.entry(known_of_ticket(run)).or_default().insert(digest.clone());
            }
        }
        Self { unknown, ..searches }
    }

    /// The search of a run's ticket: by the name of its directory, and among several of a name by the ticket's digest.
    fn search(&self, run: &Run) -> Option<usize> {
        let name = run.labels.ticket.as_deref()?;
        let (search, folder) = name.split_once('/').unwrap_or((name, ""));
        match self.named.get(search)?.as_slice() {
            [(_, only)] => Some(*only),
            several => {
                let digest = run.settings.get(TICKET_DIGEST)?;
                let is_of = |directory: &Option<PathBuf>| {
                    let Some(directory) = directory else { return false };
                    let path = directory.join(folder).join(TICKET_FILE);
                    let mut digests = self.digests.borrow_mut();
                    let own = digests.entry(path).or_insert_with_key(|path| sha256_file(path).ok());
                    own.as_ref() == Some(digest)
                };
                several.iter().find(|(directory, _)| is_of(directory)).map(|(_, i)| *i)
            }
        }
    }

    /// The variant of the search of a run's ticket. Different tickets with the same labels, whose searches are no part of
    /// the report, are told apart by their digests.
    fn variant(&self, run: &Run, variants: &[String]) -> String {
        if let Some(search) = self.search(run) {
            return variants[search].clone();
        }
        let several = self.unknown.get(&known_of_ticket(run)).is_some_and(|digests| digests.len() > 1);
        match run.settings.get(TICKET_DIGEST).filter(|_| several) {
            Some(digest) => format!("ticket {}", first_digits(digest)),
            None => String::new(),
        }
    }
}

/// The setting with the digest of a run's ticket.
const TICKET_DIGEST: &str = "ticket-sha256";

fn ticket_key(run: &Run, searched: &str) -> TicketKey {
    let labels = &run.labels;
    let scope = labels.scope.as_deref().filter(|scope| *scope != "local").map(|scope| format!("{scope} scope"));
    let start = labels.start.as_deref().filter(|start| *start != "magnitude");
    let start = start.map(|start| format!("from {start} masks"));
    let searched = (!searched.is_empty()).then(|| searched.to_owned());
    let variant: Vec<String> = scope.into_iter().chain(start).chain(searched).collect();
    let method = Method { name: labels.method.clone(), variant: variant.join(", ") };
    if method.is_dense() {
        return TicketKey {
            base: labels.base.clone(),
            method: Method::dense(),
            level: Level::DENSE,
            steps: 0,
            seed: None,
        };
    }
    TicketKey {
        base: labels.base.clone(),
        method,
        level: Level::of(labels.sparsity.unwrap_or_default()),
        steps: labels.steps.unwrap_or_default(),
        // The record of a run that no study started has a seed for a method that draws nothing, too.
        seed: labels.ticket_seed.filter(|_| draws(&labels.method)),
    }
}

fn score(i: usize, run: &Run, ticket: TicketKey, variant: &str) -> Option<Score> {
    let examples = run.train_examples().unwrap_or_default();
    let task = Task { name: run.labels.task.clone()?, variant: variant.to_owned() };
    Some(Score { run: i, ticket, task, examples, seed: run.labels.seed, value: run.score()? })
}

fn loss(i: usize, run: &Run, ticket: TicketKey) -> Loss {
    Loss { run: i, ticket, mlm: run.number("mlm_loss"), kd: run.number("kd_cosine") }
}

/// Leaves out runs with the digest of another, or with all that decides the result of another.
fn leave_out_repetitions(runs: &mut Vec<Run>, left_out: &mut Vec<LeftOut>) {
    let mut seen: HashMap<String, String> = HashMap::new();
    runs.retain(|run| {
        let identity = match &run.id {
            Some(id) => format!("{:?} {id}", run.kind),
            // Without its settings nothing tells whether a run repeats another.
            None if run.directory.is_none() => run.name.clone(),
            None => identity(run),
        };
        match seen.get(&identity) {
            Some(first) => {
                let reason = format!("it repeats {first}, with the same settings and inputs");
                left_out.push(LeftOut { name: run.name.clone(), reason });
                false
            }
            None => {
                seen.insert(identity, run.name.clone());
                true
            }
        }
    });
}

//! Circles in a graph of imports, and how they read.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::modules::Imports;

/// A description of each group of files that import each other: one shortest circle, then every import inside the group.
pub(crate) fn circles(imports: &Imports) -> Vec<String> {
    groups(imports).iter().map(|group| describe(imports, group)).collect()
}

/// Sets of at least two files, each of which reaches all files of its set.
fn groups(imports: &Imports) -> BTreeSet<BTreeSet<&str>> {
    let files: BTreeSet<&str> = imports.keys().flat_map(|(from, to)| [from.as_str(), to.as_str()]).collect();
    let reached: BTreeMap<&str, BTreeSet<&str>> =
        files.iter().map(|&file| (file, paths_from(imports, file).into_keys().collect())).collect();
    let group = |file: &&str| reached[file].iter().copied().filter(|other| reached[other].contains(file)).collect();
    files.iter().map(group).filter(|group: &BTreeSet<&str>| !group.is_empty()).collect()
}

/// For each file that a chain of imports from `start` reaches: the file before it on a shortest chain.
fn paths_from<'a>(imports: &'a Imports, start: &'a str) -> BTreeMap<&'a str, &'a str> {
    let (mut before, mut queue) = (BTreeMap::new(), VecDeque::from([start]));
    while let Some(file) = queue.pop_front() {
        for (_, to) in imports.keys().filter(|(from, _)| from == file) {
            if !before.contains_key(to.as_str()) {
                before.insert(to.as_str(), file);
                queue.push_back(to);
            }
        }
    }
    before
}

/// The files of the shortest circle through `start`, which comes first.
fn shortest_circle<'a>(imports: &'a Imports, start: &'a str) -> Vec<&'a str> {
    let before = paths_from(imports, start);
    let mut circle = vec![start];
    let mut at = before[start];
    while at != start {
        circle.push(at);
        at = before[at];
    }
    circle[1..].reverse();
    circle
}

fn describe(imports: &Imports, group: &BTreeSet<&str>) -> String {
    let circle = group.iter().map(|file| shortest_circle(imports, file)).min_by_key(Vec::len).unwrap();
    let import = |(from, to): &(String, String)| {
        let names: Vec<&str> = imports[&(from.clone(), to.clone())].iter().map(String::as_str).collect();
        format!("  {from} imports {} from {to}\n", names.join(", "))
    };
    let next = circle.iter().cycle().skip(1);
    let arrows = circle.iter().zip(next).map(|(from, to)| import(&((*from).to_owned(), (*to).to_owned())));
    let inside = |(from, to): &&(String, String)| group.contains(from.as_str()) && group.contains(to.as_str());
    let all: String = imports.keys().filter(inside).map(import).collect();
    let one: String = arrows.collect();
    let rest =
        if all.lines().count() > circle.len() { format!(" All imports among them:\n{all}") } else { String::new() };
    format!("{} files import each other:\n{one}{rest}", group.len())
}

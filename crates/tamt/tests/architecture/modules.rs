//! The modules of a crate, and which file imports which names from which other file.

use std::collections::{BTreeMap, BTreeSet};

use crate::tokens::{is_identifier, tokens};

/// File names, and the text of each.
pub(crate) type Sources = BTreeMap<String, String>;

/// For each pair (importing file, imported file): the imported names.
pub(crate) type Imports = BTreeMap<(String, String), BTreeSet<String>>;

/// Longest chain of names for a module that is followed: a chain may lead back to its beginning.
const MAX_ALIASES: usize = 8;

struct Module {
    file: String,
    /// Directory of the files of child modules.
    directory: String,
    parent: usize,
    children: BTreeMap<String, usize>,
    uses: Vec<Use>,
    /// Paths in code, such as `module::function`.
    paths: Vec<Vec<String>>,
}

/// One name that a `use` declaration brings into scope.
struct Use {
    path: Vec<String>,
    name: String,
    public: bool,
}

/// The imports between the files that the module tree of the crate root `root` reaches, tests left out.
///
/// A name that a module re-exports counts as imported from that module, and the re-export counts as an import. A `mod`
/// declaration is no import. A path that starts with neither a keyword, a child module nor an imported module belongs to
/// another crate.
pub(crate) fn imports(sources: &Sources, root: &str) -> Imports {
    let directory = root.rsplit_once('/').map_or("", |(directory, _)| directory);
    let mut tree = Tree { sources, modules: Vec::new() };
    tree.read(root, directory, 0);
    let mut found = Imports::new();
    for (module, Module { file, uses, paths, .. }) in tree.modules.iter().enumerate() {
        let used = uses.iter().map(|item| (&item.path, item.public));
        for (path, public) in used.chain(paths.iter().map(|path| (path, false))) {
            let Some((target, item)) = tree.resolve(module, path, 0) else { continue };
            let to = &tree.modules[target].file;
            let name = if public && item.is_none() { path.last() } else { item };
            if let (Some(name), true) = (name, to != file) {
                found.entry((file.clone(), to.clone())).or_default().insert(name.clone());
            }
        }
    }
    found
}

struct Tree<'a> {
    sources: &'a Sources,
    /// The root comes first and is its own parent.
    modules: Vec<Module>,
}

impl<'a> Tree<'a> {
    /// Adds the module that `file` holds, and its children.
    fn read(&mut self, file: &str, directory: &str, parent: usize) -> usize {
        let text = self.sources.get(file).unwrap_or_else(|| panic!("there is no {file}"));
        let module = self.add(file, directory, parent);
        self.scan(&tokens(text), module);
        module
    }

    fn add(&mut self, file: &str, directory: &str, parent: usize) -> usize {
        let (file, directory) = (file.to_owned(), directory.to_owned());
        let (children, uses, paths) = (BTreeMap::new(), Vec::new(), Vec::new());
        self.modules.push(Module { file, directory, parent, children, uses, paths });
        self.modules.len() - 1
    }

    /// Collects declarations and paths of `module` out of its tokens.
    fn scan(&mut self, tokens: &[&'a str], module: usize) {
        let mut at = 0;
        while at < tokens.len() {
            at = match &tokens[at..] {
                ["#", "!", "[", ..] => closing(tokens, at + 2) + 1,
                ["#", "[", ..] if is_test(&tokens[at..=closing(tokens, at + 1)]) => item_end(tokens, at),
                ["#", "[", ..] => closing(tokens, at + 1) + 1,
                ["pub", "(", ..] => {
                    let end = closing(tokens, at + 1) + 1;
                    if tokens.get(end) == Some(&"use") { self.scan_use(tokens, end, module, true) } else { end }
                }
                ["pub", "use", ..] => self.scan_use(tokens, at + 1, module, true),
                ["use", next, ..] if *next != "<" => self.scan_use(tokens, at, module, false),
                ["mod", name, ";", ..] => {
                    self.declare(name, module);
                    at + 3
                }
                ["mod", name, "{", ..] => {
                    let end = closing(tokens, at + 2);
                    let Module { file, directory, .. } = &self.modules[module];
                    let (file, directory) = (file.clone(), format!("{directory}/{name}"));
                    let child = self.add(&file, &directory, module);
                    self.modules[module].children.insert((*name).to_owned(), child);
                    self.scan(&tokens[at + 3..end], child);
                    end + 1
                }
                [first, "::", ..] if is_identifier(first) && !continues(tokens, at) => {
                    let path = path_at(tokens, at);
                    let end = at + 2 * path.len() - 1;
                    self.modules[module].paths.push(path);
                    end
                }
                _ => at + 1,
            };
        }
    }

    /// Reads the file of `mod name;`.
    fn declare(&mut self, name: &str, module: usize) {
        let directory = format!("{}/{name}", self.modules[module].directory);
        let flat = format!("{directory}.rs");
        let file = if self.sources.contains_key(&flat) { flat } else { format!("{directory}/mod.rs") };
        let child = self.read(&file, &directory, module);
        self.modules[module].children.insert(name.to_owned(), child);
    }

    /// Collects the names of the `use` declaration at `at`; gives the position after it.
    fn scan_use(&mut self, tokens: &[&str], at: usize, module: usize, public: bool) -> usize {
        let end = at + tokens[at..].iter().position(|token| *token == ";").expect("a `use` ends");
        let mut uses = Vec::new();
        // a leading `::` says that the path belongs to another crate
        if tokens[at + 1] != "::" {
            use_tree(&tokens[at + 1..end], &[], &mut uses);
        }
        self.modules[module].uses.extend(uses.into_iter().map(|(path, name)| Use { path, name, public }));
        end + 1
    }

    /// The deepest module that `path` leads to, and the name after it. None: the path leaves the crate.
    fn resolve<'p>(&self, module: usize, path: &'p [String], depth: usize) -> Option<(usize, Option<&'p String>)> {
        let first = path[0].as_str();
        let (mut at, mut rest) = match first {
            "crate" => (0, &path[1..]),
            "self" => (module, &path[1..]),
            "super" => (self.modules[module].parent, &path[1..]),
            _ if self.modules[module].children.contains_key(first) => (module, path),
            _ => {
                let Module { uses, parent, .. } = &self.modules[module];
                let names = |item: &&Use| item.name == first && item.path != path;
                let Some(alias) = uses.iter().find(names).filter(|_| depth < MAX_ALIASES) else {
                    let takes_names_of_parent =
                        uses.iter().any(|item| item.path == ["super", "*"]) && *parent != module;
                    return if takes_names_of_parent { self.resolve(*parent, path, depth) } else { None };
                };
                match self.resolve(module, &alias.path, depth + 1)? {
                    (target, None) => (target, &path[1..]),
                    _ => return None,
                }
            }
        };
        while let Some(name) = rest.first() {
            at = match self.modules[at].children.get(name) {
                Some(&child) => child,
                None if name == "super" => self.modules[at].parent,
                None => break,
            };
            rest = &rest[1..];
        }
        Some((at, rest.first()))
    }
}

/// Paths and names of a tree such as `a::{self, b as c, d::*}` below `prefix`.
fn use_tree(tokens: &[&str], prefix: &[String], found: &mut Vec<(Vec<String>, String)>) {
    let mut path = prefix.to_vec();
    let mut name = None;
    let mut at = 0;
    while at < tokens.len() {
        match tokens[at] {
            "{" => {
                let end = closing(tokens, at);
                let (mut start, mut depth) = (at + 1, 0);
                for position in at + 1..=end {
                    match tokens[position] {
                        "{" => depth += 1,
                        "}" if position < end => depth -= 1,
                        "," | "}" if depth == 0 => {
                            use_tree(&tokens[start..position], &path, found);
                            start = position + 1;
                        }
                        _ => {}
                    }
                }
                return;
            }
            "as" => {
                name = Some(tokens[at + 1]);
                at += 1;
            }
            "self" if !path.is_empty() => {}
            "::" | "$" => {}
            segment => path.push(segment.to_owned()),
        }
        at += 1;
    }
    if path.len() > prefix.len() || tokens.contains(&"self") {
        let name = name.map_or_else(|| path[path.len() - 1].clone(), str::to_owned);
        found.push((path, name));
    }
}

/// Whether the token at `at` goes on a path or is a field.
fn continues(tokens: &[&str], at: usize) -> bool {
    at > 0 && matches!(tokens[at - 1], "::" | ".")
}

/// The identifiers of the path that starts at `at`.
fn path_at(tokens: &[&str], at: usize) -> Vec<String> {
    let mut path = vec![tokens[at].to_owned()];
    let mut rest = &tokens[at + 1..];
    while let ["::", next, after @ ..] = rest
        && is_identifier(next)
    {
        path.push((*next).to_owned());
        rest = after;
    }
    path
}

/// Whether an attribute is `#[cfg(test)]`, alone or among other conditions.
fn is_test(attribute: &[&str]) -> bool {
    attribute.get(2) == Some(&"cfg") && attribute.contains(&"test") && !attribute.contains(&"not")
}

/// The position after the item whose attributes start at `at`.
fn item_end(tokens: &[&str], mut at: usize) -> usize {
    while tokens[at..].starts_with(&["#", "["]) {
        at = closing(tokens, at + 1) + 1;
    }
    while at < tokens.len() {
        match tokens[at] {
            ";" => return at + 1,
            "{" => return closing(tokens, at) + 1,
            "(" | "[" => at = closing(tokens, at) + 1,
            _ => at += 1,
        }
    }
    at
}

/// The position of the bracket that closes the one at `open`.
fn closing(tokens: &[&str], open: usize) -> usize {
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match *token {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at;
        }
    }
    panic!("a bracket is not closed: {:?}", &tokens[open..tokens.len().min(open + 10)]);
}

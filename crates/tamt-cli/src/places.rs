//! What is at a path, for errors about files: a reader sees what is there, not only what is missing.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use tamt_data::nearest;
use tamt_files::broken_link;

/// Number of names that a description of a directory shows.
const NAMES_SHOWN: usize = 8;

/// What is at `path`, or near it where nothing is, in a clause: `runs is a directory of a, b`.
pub(crate) fn what_is_at(path: &Path) -> String {
    let shown = path.display();
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => match names(path).as_slice() {
            [] => format!("{shown} is an empty directory"),
            names => format!("{shown} is a directory with {}", listed(names)),
        },
        Ok(metadata) if metadata.is_file() && metadata.len() == 0 => format!("{shown} is an empty file"),
        Ok(metadata) if metadata.is_file() => format!("{shown} is a file"),
        Ok(_) => format!("{shown} is neither a file nor a directory"),
        Err(_) => nothing_at(path),
    }
}

/// What is near `path`, where nothing is.
fn nothing_at(path: &Path) -> String {
    let shown = path.display();
    if let Some(link) = path.ancestors().find_map(wrong_link) {
        return link;
    }
    let parent = match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => return format!("there is no {shown}"),
    };
    if !parent.exists() {
        return match path.ancestors().skip(1).find(|above| !above.as_os_str().is_empty() && above.exists()) {
            Some(above) if above.is_dir() => format!("{} is the last part that exists{}", above.display(), meant(path)),
            Some(above) => format!("{} is a file", above.display()),
            None => format!("the working directory has no {}{}", parent.display(), meant(path)),
        };
    }
    if !parent.is_dir() {
        return format!("{} is a file", parent.display());
    }
    let all = names(parent);
    let names: Vec<String> = all.iter().filter(|name| parent.join(name).exists()).cloned().collect();
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let place =
        if parent == Path::new(".") { "the working directory".to_owned() } else { parent.display().to_string() };
    match nearest(&name, names.iter().map(String::as_str)) {
        Some(near) => format!("{place} has no {name}; did you mean {}?", path.with_file_name(near).display()),
        None if all.is_empty() => format!("{place} is empty"),
        None if names.is_empty() => format!("{place} has no {name}"),
        None => format!("{place} has no {name}, but {}", listed(&names)),
    }
}

/// What is wrong with a link that leads to nothing; `None` for other paths.
fn wrong_link(path: &Path) -> Option<String> {
    let (target, error) = broken_link(path)?;
    let (shown, target) = (path.display(), target.display());
    Some(match error.kind() {
        ErrorKind::NotFound => format!("{shown} is a link to {target}, which does not exist"),
        _ => format!("{shown} is a link to {target}, which cannot be followed: {error}"),
    })
}

/// The end of a description of `path`: the nearest path that exists, or nothing.
fn meant(path: &Path) -> String {
    nearest_path(path, Path::exists).map_or_else(String::new, |near| format!("; did you mean {}?", near.display()))
}

/// The directory whose path is nearest to `path`, where nothing is.
pub(crate) fn nearest_directory(path: &Path) -> Option<PathBuf> {
    nearest_path(path, Path::is_dir)
}

/// The path that `path` becomes when each part that does not exist is replaced by the nearest name beside that part; `None`
/// if a part has no such name, or `fits` is false for the last one.
fn nearest_path(path: &Path, fits: fn(&Path) -> bool) -> Option<PathBuf> {
    let parts = path.components().count();
    let mut near = PathBuf::new();
    for (i, part) in path.components().enumerate() {
        let is_fit = |path: &Path| if i + 1 == parts { fits(path) } else { path.is_dir() };
        if is_fit(&near.join(part)) {
            near.push(part);
            continue;
        }
        let directory = if near.as_os_str().is_empty() { Path::new(".") } else { &near };
        let mut names = names(directory);
        names.retain(|name| is_fit(&near.join(name)));
        let name = nearest(&part.as_os_str().to_string_lossy(), names.iter().map(String::as_str))?;
        near.push(name);
    }
    Some(near).filter(|near| near != path)
}

/// The names in a directory, sorted.
fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok);
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    // Hidden files, a lock for example, say little about a directory.
    let visible: Vec<String> = names.iter().filter(|name| !name.starts_with('.')).cloned().collect();
    if visible.is_empty() { names } else { visible }
}

fn listed(names: &[String]) -> String {
    let shown = names.iter().take(NAMES_SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(NAMES_SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn the_description_is_of_what_exists_and_of_what_is_nearest() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        let said = |name: &str| what_is_at(&root.join(name)).replace(root.to_str().unwrap(), "R");
        assert_eq!(said("ticket"), "R is empty");
        fs::create_dir(root.join("empty")).unwrap();
        fs::write(root.join("wiki.txt"), "text").unwrap();
        fs::write(root.join("none"), "").unwrap();
        assert_eq!(said(""), "R/ is a directory with empty, none, wiki.txt");
        assert_eq!(said("empty"), "R/empty is an empty directory");
        assert_eq!(said("none"), "R/none is an empty file");
        assert_eq!(said("wiki.txt"), "R/wiki.txt is a file");
        assert_eq!(said("wikki.txt"), "R has no wikki.txt; did you mean R/wiki.txt?");
        assert_eq!(said("ticket"), "R has no ticket, but empty, none, wiki.txt");
        assert_eq!(said("runs/kd/ticket"), "R is the last part that exists");
        fs::create_dir_all(root.join("empty/kd-70")).unwrap();
        assert_eq!(said("emtpy/kd-70"), "R is the last part that exists; did you mean R/empty/kd-70?");
        assert_eq!(said("emtpy/kd7/x"), "R is the last part that exists");
        assert_eq!(nearest_directory(&root.join("empty/kd70")), Some(root.join("empty/kd-70")));
        assert_eq!(nearest_directory(&root.join("wikki.txt")), None);
        assert_eq!(nearest_directory(Path::new("scr/verbs")), Some("src/verbs".into()));
        fs::remove_dir_all(root.join("empty/kd-70")).unwrap();
        assert_eq!(said("wiki.txt/ticket"), "R/wiki.txt is a file");
        symlink("missing", root.join("link")).unwrap();
        symlink("turn", root.join("turn")).unwrap();
        assert_eq!(said("link"), "R/link is a link to missing, which does not exist");
        assert_eq!(said("link/ticket"), "R/link is a link to missing, which does not exist");
        assert!(said("turn").starts_with("R/turn is a link to turn, which cannot be followed: "), "{}", said("turn"));
        assert_eq!(said("lnk"), "R has no lnk, but empty, none, wiki.txt");
        symlink("missing", root.join("empty/link")).unwrap();
        assert_eq!(said("empty/ticket"), "R/empty has no ticket");
        fs::remove_file(root.join("empty/link")).unwrap();
        (0..9).for_each(|i| fs::write(root.join("empty").join(i.to_string()), "").unwrap());
        assert_eq!(said("empty"), "R/empty is a directory with 0, 1, 2, 3, 4, 5, 6, 7 and 1 more");
    }
}

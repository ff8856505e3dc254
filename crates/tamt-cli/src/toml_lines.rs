//! The lines of a TOML file, for errors about its keys.

use toml::de::{DeTable, DeValue};

/// The line, from 1, of the key at `path`, whose parts a dot joins: `train.optimizer.epsilon`. `None` if `text` has no
/// such key, or a part of the path is itself a key with a dot.
pub(crate) fn line_of(text: &str, path: &str) -> Option<usize> {
    let parsed = DeTable::parse(text).ok()?;
    let (mut table, mut start) = (Some(parsed.get_ref()), 0);
    for part in path.split('.') {
        let (key, value) = table?.iter().find(|(key, _)| key.get_ref() == part)?;
        start = key.span().start;
        table = match value.get_ref() {
            DeValue::Table(inner) => Some(inner),
            _ => None,
        };
    }
    Some(text.get(..start)?.matches('\n').count() + 1)
}

/// The beginning of an error about the key at `path`: `line 3: `, or nothing.
pub(crate) fn place(text: &str, path: &str) -> String {
    line_of(text, path).map_or_else(String::new, |line| format!("line {line}: "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_tables_and_dotted_keys_have_lines() {
        let text = "seed = 1\n\n[train]\nsteps = 2\n'more' = 3\n[train.optimizer]\nbeta1 = 1\n[kd]\na.b = 4\n[empty]\n";
        for (path, line) in [
            ("seed", Some(1)),
            ("train", Some(3)),
            ("train.steps", Some(4)),
            ("train.more", Some(5)),
            ("train.optimizer.beta1", Some(7)),
            ("kd.a.b", Some(9)),
            ("empty", Some(10)),
            ("train.beta1", None),
            ("seed.x", None),
        ] {
            assert_eq!(line_of(text, path), line, "{path}");
        }
        assert_eq!(place("x = [", "x"), "");
    }
}

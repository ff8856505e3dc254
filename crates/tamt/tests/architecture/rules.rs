//! What counts as an import, on crates of a few lines.

use crate::circles::circles;
use crate::modules::{Sources, imports};

/// The circles of a crate; each file is a pair of its name below `src` and its text.
fn circles_of(files: &[(&str, &str)]) -> Vec<String> {
    let sources: Sources = files.iter().map(|(name, text)| (format!("src/{name}"), (*text).to_owned())).collect();
    circles(&imports(&sources, "src/lib.rs"))
}

/// Asserts that there is one circle of the files `expected`, which begins with the first of them.
#[track_caller]
fn is_circle(files: &[(&str, &str)], expected: &str) {
    let found = circles_of(files);
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(found[0].starts_with(expected), "{}", found[0]);
}

#[track_caller]
fn is_free(files: &[(&str, &str)]) {
    assert_eq!(circles_of(files), Vec::<String>::new());
}

const ROOT: (&str, &str) = ("lib.rs", "pub mod a; mod b;");

#[test]
fn a_circle_is_named_with_the_names_imported() {
    is_circle(
        &[ROOT, ("a.rs", "use crate::b::{One, two as other};"), ("b.rs", "pub fn f() { crate::a::three(); }")],
        "2 files import each other:\n  src/a.rs imports One, two from src/b.rs\n  src/b.rs imports three from src/a.rs\n",
    );
}

#[test]
fn a_longer_circle_is_found_too() {
    let root = ("lib.rs", "mod a; mod b; mod c; mod d;");
    let (a, b, c) =
        (("a.rs", "use super::b::B;"), ("b.rs", "use crate::c;\nfn f() { c::g() }"), ("c.rs", "use crate::a::A;"));
    is_circle(&[root, a, b, c, ("d.rs", "use crate::a::A;")], "3 files import each other:");
    is_free(&[root, a, b, ("c.rs", ""), ("d.rs", "use crate::a::A;")]);
}

#[test]
fn a_child_that_imports_what_its_parent_re_exports_makes_a_circle() {
    let root = ("lib.rs", "pub mod a;");
    let parent = ("a/mod.rs", "mod b; mod c; pub use b::B; pub(crate) use self::c::C;");
    is_circle(&[root, parent, ("a/b.rs", "use super::C;"), ("a/c.rs", "")], "2 files import each other:");
    is_free(&[root, parent, ("a/b.rs", "use super::c::C;"), ("a/c.rs", "")]);
}

#[test]
fn the_root_is_a_file_like_any_other() {
    let root = ("lib.rs", "mod a; mod b; pub use a::A;");
    is_circle(&[root, ("a.rs", "use crate::b::B;"), ("b.rs", "use crate::A;")], "3 files import each other:");
}

#[test]
fn a_glob_is_an_import() {
    is_circle(&[ROOT, ("a.rs", "use super::b::*;"), ("b.rs", "use crate::a::A;")], "2 files import each other:");
}

#[test]
fn a_path_through_an_imported_module_or_another_name_for_it_is_an_import() {
    let b = ("b.rs", "use crate::a::A;");
    for text in [
        "use crate::b; fn f() { b::g() }",
        "use crate::{b as c}; fn f(x: c::T) {}",
        "use crate::b::{self}; type T = b::T;",
    ] {
        is_circle(&[ROOT, ("a.rs", text), b], "2 files import each other:");
    }
    is_free(&[ROOT, ("a.rs", "use crate::b; use other::c; fn f() { c::g() }"), b]);
}

#[test]
fn a_declaration_of_a_module_is_no_import() {
    let root = ("lib.rs", "pub mod a;");
    is_free(&[root, ("a.rs", "pub mod b; pub struct A;"), ("a/b.rs", "use super::A;")]);
    is_free(&[root, ("a.rs", "pub(super) mod b; pub struct A;"), ("a/b.rs", "pub(in crate::a) use super::A;")]);
}

#[test]
fn a_module_inside_a_file_belongs_to_the_file() {
    let a = ("a.rs", "mod inner { use super::f; use crate::b::B; } fn f() { inner::g() }");
    is_free(&[ROOT, a, ("b.rs", "")]);
    is_circle(&[ROOT, a, ("b.rs", "use crate::a::f;")], "2 files import each other:");
    let b = ("b.rs", "use crate::a; mod inner { use super::*; fn f() { a::g() } }");
    is_circle(&[ROOT, ("a.rs", "use crate::b::B;"), b], "2 files import each other:");
}

#[test]
fn what_a_macro_uses_its_file_imports() {
    let a = ("a.rs", "macro_rules! m { () => { use $crate::b::B; $crate::b::g(); } }");
    is_circle(&[ROOT, a, ("b.rs", "use crate::a::A;")], "2 files import each other:\n  src/a.rs imports B, g from");
}

#[test]
fn tests_and_comments_and_strings_do_not_count() {
    let a = "use crate::b::B;";
    for b in [
        "#[cfg(test)] mod tests { use crate::a::A; }",
        "#[cfg(test)] mod tests;",
        "#[cfg(test)] use crate::a::{A, B};",
        "#[cfg(all(test, unix))] #[inline] fn f(x: [u8; 2]) { crate::a::g() }",
        "//! [`crate::a::A`]\n/// use crate::a::A;\nfn f() { let _ = (\"crate::a::A\", r#\"crate::a::\"A\"#, 'x', '\"'); }",
    ] {
        is_free(&[ROOT, ("a.rs", a), ("b.rs", b), ("b/tests.rs", "use crate::a::A;")]);
    }
    is_circle(&[ROOT, ("a.rs", a), ("b.rs", "#[cfg(not(test))] use crate::a::A;")], "2 files import each other:");
}

#[test]
fn other_crates_are_not_files() {
    is_free(&[ROOT, ("a.rs", "use crate::b::B;"), ("b.rs", "use ::a::A; use std::a; fn f() { a::g(); x.a::<u8>(); }")]);
}

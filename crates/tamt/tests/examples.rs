//! The examples run to their ends.

#[path = "../examples/encode.rs"]
mod encode;
#[path = "../examples/find_and_tune.rs"]
mod find_and_tune;

#[test]
fn the_example_that_encodes_texts_runs() {
    encode::main().unwrap();
}

#[test]
fn the_example_that_finds_and_tunes_a_ticket_runs() {
    find_and_tune::main().unwrap();
}

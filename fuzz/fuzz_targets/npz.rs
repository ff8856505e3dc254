#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| tamt_fuzz::run("npz", input));

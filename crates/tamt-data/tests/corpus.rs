//! Corpora and blocks.

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use proptest::prelude::*;
use tamt_data::{Blocks, Corpus, Error, LONGEST_LINE, ReadOptions, Tail, Tokenizer};
use tempfile::TempDir;

fn tokenizer(name: &str) -> Tokenizer {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
    Tokenizer::from_dir(&dir).unwrap()
}

fn written(contents: &[&[u8]]) -> (TempDir, Vec<PathBuf>) {
    let dir = tempfile::tempdir().unwrap();
    let files = contents.iter().enumerate().map(|(i, bytes)| {
        let path = dir.path().join(format!("{i}.txt"));
        fs::write(&path, bytes).unwrap();
        path
    });
    let files = files.collect();
    (dir, files)
}

fn read(tokenizer: &Tokenizer, contents: &[&[u8]]) -> Result<Corpus, Error> {
    let (_dir, files) = written(contents);
    Corpus::read(&files, tokenizer, ReadOptions::default())
}

fn numbered(n: usize) -> Arc<Corpus> {
    Arc::new(Corpus { tokens: (100..100 + n as u32).collect(), digest: String::new(), lines: 1, cut_lines: 0 })
}

#[test]
fn lines_of_all_files_are_joined_in_order_without_blank_ones() {
    let t = tokenizer("bert");
    let corpus = read(&t, &[b"the map\n\n  \t\nthe river\r\n", b"", b"\r\nthe keeper"]).unwrap();
    let mut want = t.ids("the map").unwrap();
    want.extend(t.ids("the river").unwrap());
    want.extend(t.ids("the keeper").unwrap());
    assert_eq!(corpus.tokens, want);
    assert_eq!(corpus.lines, 3);
}

#[test]
fn a_line_keeps_its_leading_spaces_and_loses_only_its_end() {
    let t = tokenizer("roberta");
    let corpus = read(&t, &[b" the map \r\nthe map"]).unwrap();
    let mut want = t.ids(" the map ").unwrap();
    want.extend(t.ids("the map").unwrap());
    assert_eq!(corpus.tokens, want);
}

#[test]
fn the_literal_unk_is_the_unknown_token() {
    for name in ["bert", "bert_json", "roberta"] {
        let t = tokenizer(name);
        let unk = t.specials().unk.unwrap();
        let corpus = read(&t, &[b"<unk> the <unk> map<unk><unk>"]).unwrap();
        let mut want = vec![unk];
        // RoBERTa's space is part of the following word, or a token of its own before the unknown token.
        want.extend(t.ids(" the ").unwrap());
        want.push(unk);
        want.extend(t.ids(" map").unwrap());
        want.extend([unk, unk]);
        assert_eq!(corpus.tokens, want, "{name}");
    }
}

#[test]
fn a_byte_order_mark_is_not_text() {
    let t = tokenizer("roberta");
    let corpus = read(&t, &["\u{feff}the map".as_bytes()]).unwrap();
    assert_eq!(corpus.tokens, t.ids("the map").unwrap());
}

#[test]
fn the_digest_is_of_the_bytes_of_all_files() {
    let t = tokenizer("bert");
    let corpus = read(&t, &[b"the map\n", b"the river\n"]).unwrap();
    // printf 'the map\nthe river\n' | sha256sum
    let want = "ccc523a653ed7dc4002d2fc632acaabc9a1ed7b4bb3288abb350c024b2abe051";
    assert_eq!(corpus.digest, want);
}

#[test]
fn tokens_do_not_depend_on_the_number_of_threads() {
    let t = tokenizer("roberta");
    let text: String = (0..3000).map(|i| format!("the keeper kept map {i} of the river\n")).collect();
    let (_dir, files) = written(&[text.as_bytes()]);
    let with = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| Corpus::read(&files, &t, ReadOptions::default()).unwrap())
    };
    let one = with(1);
    assert_eq!(one, with(3));
    assert_eq!(one.lines, 3000);
}

#[test]
fn progress_ends_at_the_whole_corpus_and_chunks_leave_no_trace() {
    let t = tokenizer("bert");
    // More than one chunk of 4 MiB. Long lines are fast to tokenize.
    let line = format!("{}\n", "x".repeat(1 << 16));
    let text = line.repeat(100);
    let (_dir, files) = written(&[text.as_bytes()]);
    let seen = RefCell::new(Vec::new());
    let progress = |p| seen.borrow_mut().push(p);
    let options = ReadOptions { progress: Some(&progress), ..ReadOptions::default() };
    let corpus = Corpus::read(&files, &t, options).unwrap();
    // A word of more than 100 characters is one unknown token.
    assert_eq!(corpus.tokens, [t.specials().unk.unwrap(); 100]);
    let seen = seen.into_inner();
    assert!(seen.len() > 1);
    let last = seen.last().unwrap();
    assert_eq!((last.bytes, last.tokens), (text.len() as u64, 100));
}

#[test]
fn a_line_that_is_too_long_is_cut_ahead_of_a_space_and_keeps_its_tokens() {
    // Two bytes a character and no character at a multiple of a power of two.
    let long = "a ключ é the river ".repeat(9000);
    assert!(long.len() > 3 * LONGEST_LINE);
    for name in ["bert", "roberta"] {
        let t = tokenizer(name);
        let mut want = t.ids("the map").unwrap();
        want.extend(t.ids(&long).unwrap());
        want.extend(t.ids("the keeper").unwrap());
        // With and without line ends after it: neither the tokens nor the number of lines differ.
        let corpus = read(&t, &[format!("the map\n{long}\r\nthe keeper").as_bytes()]).unwrap();
        assert!(corpus.tokens == want, "{name}");
        assert_eq!((corpus.lines, corpus.cut_lines), (3, 1));
        let corpus = read(&t, &[long.as_bytes()]).unwrap();
        assert!(corpus.tokens == t.ids(&long).unwrap(), "{name}");
        assert_eq!((corpus.lines, corpus.cut_lines), (1, 1));
    }
}

#[test]
fn a_word_without_end_is_cut_at_the_bound() {
    let t = tokenizer("bert");
    let unknown = t.specials().unk.unwrap();
    let corpus = read(&t, &["é".repeat(LONGEST_LINE).as_bytes(), &b"x".repeat(LONGEST_LINE)]).unwrap();
    // A word of more than 100 characters is one unknown token; the first file is two such words, the second is not cut.
    assert_eq!(corpus.tokens, [unknown; 3]);
    assert_eq!((corpus.lines, corpus.cut_lines), (2, 1));
}

#[test]
fn the_place_of_a_fault_counts_the_text_ahead_of_it() {
    let t = tokenizer("bert");
    let ahead = "the map\n".repeat(1 << 20);
    for (fault, what) in
        [(&b"\xff"[..], "an invalid byte 0xff"), (b"\0", "a NUL byte"), (b"\xc3", "an invalid byte 0xc3")]
    {
        let (_dir, files) = written(&[&[ahead.as_bytes(), b"ma", fault].concat()]);
        match Corpus::read(&files, &t, ReadOptions::default()) {
            Err(Error::NotText { line, offset, what: found, .. }) => {
                assert_eq!((line, offset), ((1 << 20) + 1, ahead.len() + 2), "{what}");
                assert!(found.starts_with(what), "{found}");
            }
            other => panic!("{what}: {:?}", other.map(|corpus| corpus.lines)),
        }
    }
}

#[test]
fn a_corpus_without_text_is_an_error() {
    let t = tokenizer("bert");
    assert!(matches!(Corpus::read(&[], &t, ReadOptions::default()), Err(Error::NoFiles)));
    let empty: [&[&[u8]]; 4] = [&[b""], &[b"\n \n\r\n"], &[b"", b"\t"], &["\u{feff}".as_bytes()]];
    for contents in empty {
        assert!(matches!(read(&t, contents), Err(Error::EmptyCorpus { .. })), "{contents:?}");
    }
}

#[test]
fn a_missing_file_is_an_error_that_names_it() {
    let missing = PathBuf::from("/no/such/corpus.txt");
    let error = Corpus::read(&[missing], &tokenizer("bert"), ReadOptions::default()).unwrap_err();
    assert!(error.to_string().contains("/no/such/corpus.txt"), "{error}");
    let directory = tempfile::tempdir().unwrap();
    let files = [directory.path().to_owned()];
    assert!(matches!(Corpus::read(&files, &tokenizer("bert"), ReadOptions::default()), Err(Error::Io { .. })));
}

#[test]
fn binary_files_are_errors_with_line_and_offset() {
    let t = tokenizer("bert");
    let cases: [(&[u8], usize, usize); 4] = [
        (b"one\ntwo\nthr\xffe\n", 3, 11),
        (b"one\ntw\0o\n", 2, 6),
        (b"one\ntwo\n\xe5\x8c", 3, 8),
        (b"\xff\xfet\0h\0e\0", 1, 0),
    ];
    for (bytes, want_line, want_offset) in cases {
        match read(&t, &[b"fine\n", bytes]) {
            Err(Error::NotText { path, line, offset, .. }) => {
                assert!(path.ends_with("1.txt"));
                assert_eq!((line, offset), (want_line, want_offset), "{bytes:?}");
            }
            other => panic!("{bytes:?}: {other:?}"),
        }
    }
}

#[test]
fn training_drops_the_last_partial_window_and_evaluation_keeps_it() {
    let specials = *tokenizer("bert").specials();
    let cut = |tail| Blocks::new(numbered(25), 12, tail, &specials).unwrap();
    let train = cut(Tail::Drop);
    assert_eq!(train.len(), 2);
    assert_eq!(train.window(1), (110..120).collect::<Vec<_>>());
    let eval = cut(Tail::Keep);
    assert_eq!(eval.len(), 3);
    assert_eq!(eval.window(2), [120, 121, 122, 123, 124]);
    assert_eq!((eval.window(0).len(), eval.window(2).len()), (10, 5));

    let mut ids = vec![9];
    eval.fill(2, &mut ids);
    assert_eq!(ids, [9, specials.cls, 120, 121, 122, 123, 124, specials.sep]);
}

#[test]
fn a_corpus_shorter_than_a_window_is_refused_for_training_only() {
    let specials = *tokenizer("bert").specials();
    let cut = |tail, block_size| Blocks::new(numbered(9), block_size, tail, &specials);
    assert!(matches!(cut(Tail::Drop, 12), Err(Error::TooFewTokens { tokens: 9, needed: 10 })));
    assert_eq!(cut(Tail::Keep, 12).unwrap().len(), 1);
    assert_eq!(cut(Tail::Drop, 11).unwrap().len(), 1);
    assert!(matches!(cut(Tail::Keep, 2), Err(Error::Length { length: 2, specials: 2 })));
}

/// A tokenizer that all cases share, because loading one takes longer than a case.
static BERT: LazyLock<Tokenizer> = LazyLock::new(|| tokenizer("bert"));
static ROBERTA: LazyLock<Tokenizer> = LazyLock::new(|| tokenizer("roberta"));

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn reading_arbitrary_bytes_gives_a_corpus_or_an_error(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        roberta in any::<bool>(),
    ) {
        let t: &Tokenizer = if roberta { &ROBERTA } else { &BERT };
        match read(t, &[&bytes]) {
            Ok(corpus) => {
                prop_assert!(!corpus.tokens.is_empty());
                prop_assert!(corpus.tokens.iter().all(|&id| id < t.vocab_size()));
            }
            Err(Error::NotText { offset, line, .. }) => {
                prop_assert!(offset <= bytes.len());
                prop_assert!(line >= 1);
            }
            Err(Error::EmptyCorpus { .. }) => {}
            Err(other) => prop_assert!(false, "{other}"),
        }
    }

    #[test]
    fn reading_arbitrary_text_is_tokenizing_its_lines(text in "[a-z <>\\n\\r\u{0}-\u{ff}\u{4e00}]{0,80}") {
                if let Ok(corpus) = read(&BERT, &[text.as_bytes()]) && !text.contains("<unk>") {
            let want: Vec<u32> = text
                .strip_prefix('\u{feff}')
                .unwrap_or(&text)
                .lines()
                .filter(|line| !line.trim().is_empty())
                .flat_map(|line| BERT.ids(line).unwrap())
                .collect();
            prop_assert_eq!(corpus.tokens, want);
        }
    }

    #[test]
    fn blocks_partition_the_corpus(tokens in 1usize..200, window in 1usize..50) {
        let specials = *BERT.specials();
        let blocks = Blocks::new(numbered(tokens), window + 2, Tail::Keep, &specials).unwrap();
        let joined: Vec<u32> = (0..blocks.len()).flat_map(|i| blocks.window(i).to_vec()).collect();
        prop_assert_eq!(&joined, &blocks.corpus().tokens);
    }
}

//! Small task files in words of the small models' tokenizers, and the files of a fine-tuning.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::common::{Tensors, bert, bytes, copy_files};

/// Words of the invented language of `tests/golden`.
const WORDS: [&str; 8] = ["taltul", "lordil", "basgen", "starkel", "durbastan", "rolstir", "folsta", "lis"];

/// The word that decides a sentence's label.
const MARK: &str = "lordil";

/// A number without a pattern.
pub(crate) fn mixed(i: u64) -> u64 {
    let z = (i.wrapping_add(1)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z ^ (z >> 29)
}

/// Sentence number `i`: two to six words, half of the time with [`MARK`] among them.
pub(crate) fn sentence(i: u64) -> String {
    let words = 2 + mixed(i) % 5;
    let mut sentence = Vec::new();
    for place in 0..words {
        let at = mixed(i * 64 + place + 7) as usize % WORDS.len();
        sentence.push(if WORDS[at] == MARK { "lis" } else { WORDS[at] });
    }
    if mixed(i + 1_000_000).is_multiple_of(2) {
        sentence[mixed(i) as usize % words as usize] = MARK;
    }
    sentence.join(" ")
}

/// Whether a text holds the word that matters.
pub(crate) fn is_marked(text: &str) -> bool {
    text.split(' ').any(|word| word == MARK)
}

pub(crate) fn write(folder: &Path, name: &str, content: &str) {
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join(name), content).unwrap();
}

/// `CoLA`'s columns: no header, the label second, the sentence fourth.
pub(crate) fn cola_rows(from: u64, n: u64) -> String {
    (from..from + n).fold(String::new(), |mut rows, i| {
        let text = sentence(i);
        let _ = writeln!(rows, "made\t{}\t\t{text}", u8::from(is_marked(&text)));
        rows
    })
}

/// 96 sentences to train on, 40 to evaluate on, 12 for the server, in `CoLA`'s files in `directory`.
pub(crate) fn cola(directory: &Path) -> String {
    write(directory, "train.tsv", &cola_rows(0, 96));
    write(directory, "dev.tsv", &cola_rows(1000, 40));
    let test = (2000..2012).fold("index\tsentence\n".to_owned(), |mut rows, i| {
        let _ = writeln!(rows, "{}\t{}", 3 * (i - 2000), sentence(i));
        rows
    });
    write(directory, "test.tsv", &test);
    directory.to_str().unwrap().to_owned()
}

/// Pairs with their label and number, by `label`, in lines made by `row`, below `header`.
pub(crate) fn pairs<L: std::fmt::Display>(
    header: &str,
    from: u64,
    n: u64,
    label: impl Fn(&str, &str) -> L,
    row: impl Fn(u64, &str, &str, &L) -> String,
) -> String {
    (from..from + n).fold(format!("{header}\n"), |mut rows, i| {
        let (first, second) = (sentence(2 * i), sentence(2 * i + 1));
        let label = label(&first, &second);
        let _ = writeln!(rows, "{}", row(i, &first, &second, &label));
        rows
    })
}

/// Questions in `SQuAD`'s form about contexts of a dozen words; each asks for the word after the one it names. With
/// `unanswerable`, every third asks for a word that is not there.
pub(crate) fn questions(from: u64, n: u64, unanswerable: bool) -> Value {
    let paragraphs: Vec<Value> = (from..from + n)
        .map(|i| {
            let context = [sentence(3 * i), sentence(3 * i + 1), sentence(3 * i + 2)].join(" ");
            let words: Vec<&str> = context.split(' ').collect();
            let at = mixed(i) as usize % (words.len() - 1);
            let start: usize = words[..=at].iter().map(|word| word.len() + 1).sum();
            let impossible = unanswerable && i % 3 == 0;
            let mut question = json!({"id": format!("q{i}"), "question": words[at], "answers": []});
            if !impossible {
                question["answers"] = json!([{"text": words[at + 1], "answer_start": start}]);
            }
            if unanswerable {
                question["is_impossible"] = json!(impossible);
            }
            json!({"context": context, "qas": [question]})
        })
        .collect();
    json!({"version": "made", "data": [{"title": "made", "paragraphs": paragraphs}]})
}

/// 40 questions to train on and 12 to evaluate on, in the files of `squad` or `squad2`.
pub(crate) fn squad(directory: &Path, unanswerable: bool) -> String {
    let version = if unanswerable { "v2.0" } else { "v1.1" };
    write(directory, &format!("train-{version}.json"), &questions(0, 40, unanswerable).to_string());
    write(directory, &format!("dev-{version}.json"), &questions(500, 12, unanswerable).to_string());
    directory.to_str().unwrap().to_owned()
}

/// Accuracy and F1 (of `positive`) of the predictions in a `predictions.tsv`, and their Matthews correlation.
pub(crate) fn scores(predictions: &Path, positive: &str) -> (f64, f64, f64) {
    let text = String::from_utf8(bytes(predictions)).unwrap();
    let mut counts = [[0.0; 2]; 2];
    let (mut right, mut all) = (0.0, 0.0);
    for line in text.lines().skip(1) {
        let [_, said, label] = line.split('\t').collect::<Vec<_>>()[..] else { panic!("{line:?}") };
        counts[usize::from(label == positive)][usize::from(said == positive)] += 1.0;
        right += f64::from(u8::from(label == said));
        all += 1.0;
    }
    let [[tn, fp], [fn_, tp]] = counts;
    let f1 = if tp == 0.0 { 0.0 } else { 2.0 * tp / (2.0 * tp + fp + fn_) };
    let product: f64 = (tp + fp) * (tp + fn_) * (tn + fp) * (tn + fn_);
    let matthews = if product == 0.0 { 0.0 } else { (tp * tn - fp * fn_) / product.sqrt() };
    (right / all, f1, matthews)
}

/// Writes masks, of which the only one drops all weights of the pooler of a small BERT.
pub(crate) fn empty_pooler(to: &str) {
    let info = json!({"dtype": "BOOL", "shape": [16, 16], "data_offsets": [0, 256]});
    let header = serde_json::Map::from_iter([("bert.pooler.dense.weight_mask".to_owned(), info)]);
    Tensors { header, data: vec![0; 256] }.write(to);
}

/// A copy of a small model with a pooler, which it lacks.
pub(crate) fn with_pooler(model: &str, to: &Path) -> String {
    copy_files(model, to);
    let prefix = if model == bert() { "bert" } else { "roberta" };
    let path = to.join("model.safetensors");
    let mut tensors = Tensors::read(&path);
    for (name, shape) in [("weight", vec![16, 16]), ("bias", vec![16])] {
        let n: usize = shape.iter().product();
        let start = tensors.data.len();
        let values = (0..n as u64).map(|i| (mixed(i) % 1000) as f32 / 2500.0 - 0.2);
        tensors.data.extend(values.flat_map(f32::to_le_bytes));
        let info = json!({"dtype": "F32", "shape": shape, "data_offsets": [start, tensors.data.len()]});
        tensors.header.insert(format!("{prefix}.pooler.dense.{name}"), info);
    }
    tensors.write(&path);
    to.to_str().unwrap().to_owned()
}

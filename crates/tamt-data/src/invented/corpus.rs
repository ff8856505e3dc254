//! Invented text as a corpus, with a tokenizer for it.

use std::path::Path;

use crate::error::Result;
use crate::invented::draw::Draw;
use crate::invented::grammar::Suffix;
use crate::invented::meaning::Sentence;
use crate::invented::paragraph::sentences;
use crate::invented::realise::{Style, realise, text};
use crate::invented::site;
use crate::invented::split::Split;
use crate::invented::world::World;
use crate::write::atomic_write;

const SPECIAL_TOKENS: [&str; 5] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];

impl World {
    /// The WordPiece vocabulary: special tokens, the full stop, the endings and the words; 1002 pieces for any seed.
    pub fn vocab(&self) -> Vec<String> {
        let special = SPECIAL_TOKENS.iter().map(ToString::to_string);
        let endings = Suffix::ALL.map(|s| format!("##{}", s.spelling()));
        special.chain([".".to_owned()]).chain(endings).chain(self.lexicon().words.iter().cloned()).collect()
    }

    /// `vocab.txt` and `tokenizer_config.json` with their content: a tokenizer for [`Tokenizer`](crate::Tokenizer) and
    /// for the `BertTokenizer` of `transformers`.
    pub fn tokenizer_files(&self) -> [(&'static str, String); 2] {
        let mut vocab = self.vocab().join("\n");
        vocab.push('\n');
        let config = serde_json::json!({
            "tokenizer_class": "BertTokenizer",
            "do_lower_case": true,
            "pad_token": "[PAD]",
            "unk_token": "[UNK]",
            "cls_token": "[CLS]",
            "sep_token": "[SEP]",
            "mask_token": "[MASK]",
        });
        [("vocab.txt", vocab), ("tokenizer_config.json", format!("{config:#}\n"))]
    }

    /// Writes [`World::tokenizer_files`] into the existing directory `dir`.
    ///
    /// # Errors
    ///
    /// [`Error::Io`](crate::Error::Io).
    pub fn write_tokenizer(&self, dir: &Path) -> Result<()> {
        for (name, content) in self.tokenizer_files() {
            atomic_write(&dir.join(name), |out| out.write_all(content.as_bytes()))?;
        }
        Ok(())
    }

    /// The meanings and the styles of the sentences of paragraph `index`.
    pub fn styled_sentences(&self, seed: u64, split: Split, index: u64) -> Vec<(Sentence, Style)> {
        self.draw_styled_sentences(&mut paragraph_draw(seed, split, index))
    }

    pub(super) fn draw_styled_sentences(&self, draw: &mut Draw) -> Vec<(Sentence, Style)> {
        sentences(self, draw).into_iter().map(|sentence| (sentence, Style::random(draw))).collect()
    }

    /// The text of paragraph `index`, and its length in word pieces.
    fn paragraph(&self, seed: u64, split: Split, index: u64) -> (String, usize) {
        let draw = &mut paragraph_draw(seed, split, index);
        let mut paragraph = String::new();
        let mut pieces = 0;
        for (sentence, style) in self.draw_styled_sentences(draw) {
            let words = realise(self, &sentence, style, draw);
            let endings = words.iter().filter(|w| w.suffix.is_some()).count();
            pieces += words.len() + endings + 1;
            if !paragraph.is_empty() {
                paragraph.push(' ');
            }
            paragraph += &text(&words);
        }
        (paragraph, pieces)
    }

    /// The first `n` paragraphs of a split, without line ends. A paragraph has two to six sentences.
    pub fn paragraphs(&self, n: usize, seed: u64, split: Split) -> Vec<String> {
        (0..n as u64).map(|i| self.paragraph(seed, split, i).0).collect()
    }

    /// Paragraphs of a split, one per line, until they have at least `tokens` word pieces, and the number of word
    /// pieces.
    pub fn corpus(&self, tokens: usize, seed: u64, split: Split) -> (String, usize) {
        let (mut lines, mut pieces, mut index) = (String::new(), 0, 0);
        while pieces < tokens {
            let (paragraph, its_pieces) = self.paragraph(seed, split, index);
            lines += &paragraph;
            lines.push('\n');
            pieces += its_pieces;
            index += 1;
        }
        (lines, pieces)
    }

    /// Writes [`World::corpus`], and returns the number of word pieces.
    ///
    /// # Errors
    ///
    /// [`Error::Io`](crate::Error::Io).
    pub fn write_corpus(&self, path: &Path, tokens: usize, seed: u64, split: Split) -> Result<usize> {
        let (lines, pieces) = self.corpus(tokens, seed, split);
        atomic_write(path, |out| out.write_all(lines.as_bytes()))?;
        Ok(pieces)
    }
}

fn paragraph_draw(seed: u64, split: Split, index: u64) -> Draw {
    Draw::new(seed, site::PARAGRAPH + split as u32, index)
}

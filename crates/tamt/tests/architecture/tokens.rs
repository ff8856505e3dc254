//! Rust source as a list of tokens, without comments and contents of literals.

/// Identifiers, numbers, `::` and single punctuation marks of `source`. A string or character literal is one `"`.
pub(crate) fn tokens(source: &str) -> Vec<&str> {
    let bytes = source.as_bytes();
    let (mut found, mut at) = (Vec::new(), 0);
    while let Some(&byte) = bytes.get(at) {
        let rest = &source[at..];
        let length = if byte.is_ascii_whitespace() {
            1
        } else if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment(rest)
        } else if let Some(length) = literal(rest) {
            found.push("\"");
            length
        } else {
            let length = if is_word(byte) {
                rest.bytes().take_while(|&byte| is_word(byte)).count()
            } else if rest.starts_with("::") {
                2
            } else {
                rest.chars().next().map_or(1, char::len_utf8)
            };
            found.push(&rest[..length]);
            length
        };
        at += length;
    }
    found
}

/// Whether a token is an identifier, a keyword or a number.
pub(crate) fn is_identifier(token: &str) -> bool {
    token.bytes().next().is_some_and(is_word)
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

/// Bytes of the block comment that `rest` starts with; block comments nest.
fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        let step = match &rest.as_bytes()[at..] {
            [b'/', b'*', ..] => {
                depth += 1;
                2
            }
            [b'*', b'/', ..] => {
                depth -= 1;
                2
            }
            _ => 1,
        };
        at += step;
        if depth == 0 {
            break;
        }
    }
    at
}

/// Bytes of the string or character literal that `rest` starts with, if it starts with one.
fn literal(rest: &str) -> Option<usize> {
    let prefix = rest.bytes().take_while(|byte| b"bcr".contains(byte)).count();
    let raw = rest[..prefix].ends_with('r');
    let hashes = if raw { rest[prefix..].bytes().take_while(|&byte| byte == b'#').count() } else { 0 };
    let body = prefix + hashes;
    match rest.as_bytes().get(body) {
        Some(b'"') if raw => {
            let end = format!("\"{}", "#".repeat(hashes));
            Some(rest[body + 1..].find(&end).map_or(rest.len(), |at| body + 1 + at + end.len()))
        }
        Some(b'"') => Some(body + quoted(&rest[body..], b'"')),
        Some(b'\'') if hashes == 0 && prefix <= 1 => {
            let mut chars = rest[body + 1..].chars();
            let escaped = chars.next()? == '\\';
            (escaped || chars.next() == Some('\'')).then(|| body + quoted(&rest[body..], b'\''))
        }
        _ => None,
    }
}

/// Bytes from an opening quotation mark to its closing one.
fn quoted(rest: &str, mark: u8) -> usize {
    let bytes = rest.as_bytes();
    let mut at = 1;
    while at < bytes.len() && bytes[at] != mark {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

#[test]
fn comments_and_literals_are_no_code() {
    let source = r##"a::b /* c /* d */ e */ "use x;" r#"f " g"# b'h' 'i' '\'' '\u{6a}' &'j k // l
        m"##;
    assert_eq!(tokens(source), ["a", "::", "b", "\"", "\"", "\"", "\"", "\"", "\"", "&", "'", "j", "k", "m"]);
}

//! The kind of a file that is no safetensors file, by its first bytes.

/// Bytes in which the name of a zip archive's first file is looked for.
const FIRST_NAME: usize = 128;

/// What a file is, for an error about it; `None` for a file that may be a safetensors file, damaged or not.
pub fn file_kind(bytes: &[u8]) -> Option<&'static str> {
    let start = &bytes[..bytes.len().min(FIRST_NAME)];
    let names = |name: &[u8]| start.windows(name.len()).any(|window| window == name);
    let kind = match bytes {
        [b'P', b'K', 3, 4, ..] if names(b"data.pkl") || names(b"/byteorder") || names(b"/version") => PYTORCH,
        [b'P', b'K', 3, 4, ..] if names(b".npy") => "a NumPy archive",
        [b'P', b'K', 3, 4, ..] => "a PyTorch file or another zip archive",
        [0x93, b'N', b'U', b'M', b'P', b'Y', ..] => "a NumPy file",
        // The length of a safetensors header has zeros in its upper bytes, and the header follows.
        [0x80, 2..=5, _, _, 0, 0, 0, 0, b'{', ..] => return None,
        [0x80, 2..=5, 1..=255, ..] => "a Python pickle, the old format of PyTorch",
        [0x1f, 0x8b, ..] => "a gzip archive",
        _ if is_lfs_pointer(bytes) => "a Git LFS pointer; fetch the file itself with `git lfs pull`",
        _ if is_text(bytes) => "a text file",
        _ => return None,
    };
    Some(kind)
}

/// The kind of a file that `torch.save` wrote.
pub const PYTORCH: &str = "a PyTorch file";

/// Whether a file is the small text that Git has in the place of a large file until `git lfs pull`.
pub fn is_lfs_pointer(bytes: &[u8]) -> bool {
    bytes.starts_with(b"version https://git-lfs.github.com/spec/")
}

/// Whether a file begins with characters that texts have. The first eight bytes of a safetensors file have zeros.
fn is_text(bytes: &[u8]) -> bool {
    let start = &bytes[..bytes.len().min(64)];
    let whole = match std::str::from_utf8(start) {
        // The cut may lie in a character.
        Err(error) if error.error_len().is_none() => error.valid_up_to(),
        Err(_) => 0,
        Ok(text) => text.len(),
    };
    let text = std::str::from_utf8(&start[..whole]).unwrap_or_default();
    !text.is_empty() && !text.chars().any(|c| c.is_control() && !c.is_whitespace())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_told_by_the_first_bytes_and_a_safetensors_file_has_none() {
        let zip = |name: &str| [b"PK\x03\x04\x14\0\0\0\0\0", name.as_bytes()].concat();
        assert_eq!(file_kind(&zip("mask/data.pkl")), Some(PYTORCH));
        assert_eq!(file_kind(&zip("mask.npy")), Some("a NumPy archive"));
        assert_eq!(file_kind(&zip("other")), Some("a PyTorch file or another zip archive"));
        assert_eq!(file_kind(b"\x93NUMPY\x01\0"), Some("a NumPy file"));
        assert_eq!(file_kind(b"\x80\x02\x8a\nl"), Some("a Python pickle, the old format of PyTorch"));
        assert_eq!(file_kind("masques d'été\n".as_bytes()), Some("a text file"));
        assert_eq!(file_kind(b""), None);
        for length in [2u64, 0x1_0280] {
            assert_eq!(file_kind(&[&length.to_le_bytes()[..], b"{}"].concat()), None);
        }
    }
}

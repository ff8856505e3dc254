//! numpy's archives of arrays, from which masks are imported.

use tamt_model::TensorFile;

use crate::readers::files;

/// The most weights of an array that is read, so that an input with many large arrays is read in seconds.
const MOST_WEIGHTS: usize = 1 << 22;

/// Masks have the shapes of their arrays, values are finite, and both agree. Whether all arrays are masks or values.
pub(crate) fn npz(input: &[u8]) -> bool {
    let dir = files::one("masks.npz", input);
    let Ok(file) = TensorFile::open(&dir.path().join("masks.npz")) else { return false };
    assert_eq!(file.sha256().len(), 64);
    let mut is_whole = true;
    for name in file.names() {
        let shape = file.shape(name).expect("the array exists");
        let &[rows, cols] = shape else {
            assert!(file.mask(name, [0, 0]).is_err(), "{name} has a shape of its own");
            is_whole = false;
            continue;
        };
        assert!(file.mask(name, [rows.wrapping_add(1), cols]).is_err(), "{name} has a shape of its own");
        if rows.checked_mul(cols).is_none_or(|weights| weights > MOST_WEIGHTS) {
            is_whole = false;
            continue;
        }
        is_whole &= matrix(&file, name, [rows, cols]);
    }
    is_whole
}

/// Whether an array is a mask or holds values.
fn matrix(file: &TensorFile, name: &str, [rows, cols]: [usize; 2]) -> bool {
    let (mask, values) = (file.mask(name, [rows, cols]), file.values(name, [rows, cols]));
    // Each byte as the bits of eight columns.
    let bits = file.packed_mask(name, [rows, cols.saturating_mul(8)]);
    assert!(bits.is_err() || values.is_err(), "{name} holds bytes and numbers");
    if let Ok(values) = &values {
        assert_eq!(values.len(), rows * cols, "{name}");
        assert!(values.iter().all(|value| value.is_finite()), "{name}");
    }
    if let Ok(mask) = &mask {
        assert_eq!((mask.rows(), mask.cols()), (rows, cols), "{name}");
        if let Ok(values) = &values {
            let kept = |i: usize| f32::from(u8::from(mask.get(i / cols, i % cols)));
            assert!(values.iter().enumerate().all(|(i, &value)| value == kept(i)), "{name}");
        }
    }
    mask.is_ok() || values.is_ok()
}

//! A writer of `PyTorch`'s old format: pickles, then the storages.

/// A state dict of F32 tensors: name, shape and values.
pub(crate) fn legacy(tensors: &[(&str, &[usize], &[f32])]) -> Vec<u8> {
    // The magic number, the version and the system's description, as `torch.save` writes them.
    let mut file = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.".to_vec();
    file.extend(b"\x80\x02}X\x0d\0\0\0little_endian\x88s.");
    file.extend(b"\x80\x02}(");
    for (key, (name, shape, values)) in tensors.iter().enumerate() {
        text(&mut file, name);
        file.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        text(&mut file, "storage");
        file.extend(b"ctorch\nFloatStorage\n");
        text(&mut file, &key.to_string());
        text(&mut file, "cpu");
        int(&mut file, values.len());
        file.extend(b"NtQK\0");
        sizes(&mut file, shape);
        let strides: Vec<usize> = (1..=shape.len()).map(|dim| shape[dim..].iter().product()).collect();
        sizes(&mut file, &strides);
        file.extend(b"\x89ccollections\nOrderedDict\n)RtR");
    }
    file.extend(b"u.\x80\x02](");
    (0..tensors.len()).for_each(|key| text(&mut file, &key.to_string()));
    file.extend(b"e.");
    for (_, _, values) in tensors {
        file.extend((values.len() as u64).to_le_bytes());
        values.iter().for_each(|value| file.extend(value.to_le_bytes()));
    }
    file
}

fn text(file: &mut Vec<u8>, text: &str) {
    file.push(b'X');
    file.extend((text.len() as u32).to_le_bytes());
    file.extend(text.as_bytes());
}

fn int(file: &mut Vec<u8>, int: usize) {
    file.push(b'J');
    file.extend((int as u32).to_le_bytes());
}

fn sizes(file: &mut Vec<u8>, sizes: &[usize]) {
    file.push(b'(');
    sizes.iter().for_each(|&size| int(file, size));
    file.push(b't');
}

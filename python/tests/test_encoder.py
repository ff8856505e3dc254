"""Texts to vectors."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from conftest import sentences

import tamt


def embeddings(path: Path) -> np.ndarray:
    """The tensor of a file with one."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    tensor = json.loads(data[8 : 8 + length])["embeddings"]
    start, end = tensor["data_offsets"]
    return np.frombuffer(data[8 + length :][start:end], dtype="<f4").reshape(tensor["shape"])


def test_vectors_have_one_row_for_each_text_and_a_single_text_has_no_rows(model):
    encoder = tamt.Encoder(model)
    assert encoder.dimension == encoder.get_sentence_embedding_dimension() == 32
    assert encoder.max_seq_length == 32
    texts = sentences(3)
    vectors = encoder.encode(texts)
    assert vectors.shape == (3, 32) and vectors.dtype == np.float32
    assert np.array_equal(encoder.encode(texts[1]), vectors[1])
    assert encoder.encode([]).shape == (0, 32)
    assert encoder.encode(iter(texts)).shape == (3, 32)


def test_vectors_do_not_depend_on_batches_or_threads(model, ticket):
    texts = sentences(200)
    expected = tamt.Encoder(model, ticket).encode(texts)
    for threads, batch_size in ((1, 7), (2, 1), (2, 1000)):
        encoder = tamt.Encoder(model, ticket, threads=threads)
        assert np.array_equal(encoder.encode(texts, batch_size=batch_size), expected)


@pytest.mark.parametrize("is_sparse", [False, True])
@pytest.mark.parametrize("precision", ["f32", "bf16", "auto"])
def test_vectors_are_those_of_the_command_bit_for_bit(model, ticket, command, tmp_path, precision, is_sparse):
    texts = sentences(100, seed=1)
    source, target = tmp_path / "texts.txt", tmp_path / "vectors.safetensors"
    source.write_text("\n".join(texts) + "\n")
    line = [command, "encode", "--model", model, "--precision", precision, "--input", source, "--output", target]
    subprocess.run([*line, *(["--ticket", ticket] if is_sparse else [])], check=True, capture_output=True)
    encoder = tamt.Encoder(model, ticket if is_sparse else None, precision)
    assert np.array_equal(encoder.encode(texts), embeddings(target))


def test_unit_length_pooling_and_prompts_are_settings(model):
    texts = sentences(5)
    encoder = tamt.Encoder(model)
    plain = encoder.encode(texts)
    unit = encoder.encode(texts, normalize=True)
    assert np.allclose(np.linalg.norm(unit, axis=1), 1, atol=1e-6)
    assert np.allclose(unit, plain / np.linalg.norm(plain, axis=1, keepdims=True), atol=1e-6)
    assert np.array_equal(encoder.encode(texts, normalize_embeddings=True), unit)
    assert np.array_equal(encoder.encode(texts, normalize_embeddings=False, show_progress_bar=False), plain)
    assert np.array_equal(encoder.encode(texts, prompt="red "), encoder.encode(["red " + text for text in texts]))
    tokens = tamt.Encoder(model, pool="none").encode(texts)
    assert [len(states) for states in tokens] == [2 + len(text.split()) for text in texts]
    assert np.array_equal(tamt.Encoder(model, pool="cls").encode(texts), [states[0] for states in tokens])
    assert np.allclose([states.mean(axis=0) for states in tokens], plain, atol=1e-6)
    assert len(tamt.Encoder(model, pool="none", max_length=4).encode(texts[0])) == 4


def test_vectors_that_are_not_finite_are_an_error(model, tmp_path):
    copy = shutil.copytree(model, tmp_path / "copy")
    data = bytearray((copy / "model.safetensors").read_bytes())
    begin = 8 + int.from_bytes(data[:8], "little")
    start, end = json.loads(data[8:begin])["bert.encoder.layer.0.attention.self.value.weight"]["data_offsets"]
    data[begin + start : begin + end] = np.full((end - start) // 4, 3e38, "<f4").tobytes()
    (copy / "model.safetensors").write_bytes(data)
    with pytest.raises(tamt.ModelError, match="the encoding of a text is not finite"):
        tamt.Encoder(copy).encode(sentences(3))


def test_keywords_of_sentence_transformers_are_taken_or_refused(model):
    encoder = tamt.Encoder(model)
    texts = ["one two", "three"]
    plain = encoder.encode(texts)
    same = {"convert_to_numpy": True, "convert_to_tensor": False, "output_value": "sentence_embedding",
            "precision": "float32", "device": None, "prompt_name": None, "truncate_dim": None}
    assert np.array_equal(encoder.encode(sentences=texts, **same), plain)
    assert encoder.encode(sentences="one two").shape == plain[0].shape
    refused = [("convert_to_numpy", False), ("convert_to_tensor", True), ("output_value", "token_embeddings"),
               ("precision", "int8"), ("device", "cuda"), ("prompt_name", "query")]
    for name, value in refused:
        with pytest.raises(tamt.SettingError, match=name):
            encoder.encode(texts, **{name: value})
    for arguments in ({}, {"texts": texts, "sentences": texts}, {"texts": texts, "bach_size": 2}):
        with pytest.raises(TypeError):
            encoder.encode(**arguments)


def test_wrong_values_are_errors_that_name_the_keyword(model, tmp_path):
    for keywords in ({"precision": "f64"}, {"kernel": "fast"}, {"pool": "max"}, {"threads": 0}, {"threads": -1},
                     {"threads": 100_000}, {"max_length": 33}, {"max_length": 2}, {"max_length": -1}):
        with pytest.raises(tamt.SettingError, match=next(iter(keywords)).replace("_", "[_-]")):
            tamt.Encoder(model, **keywords).encode("the cat")
    with pytest.raises(tamt.SettingError, match="batch_size"):
        tamt.Encoder(model).encode("the cat", batch_size=-1)
    with pytest.raises(tamt.TamtError, match="nothing-here"):
        tamt.Encoder(tmp_path / "nothing-here")
    with pytest.raises(tamt.TicketError, match="is no ticket"):
        tamt.Encoder(model, model)
    with pytest.raises(TypeError):
        tamt.Encoder(model).encode([1, 2])


def test_progress_is_counted_and_shown(model, capfd):
    counts = []
    tamt.Encoder(model).encode(sentences(50), batch_size=10, progress=lambda event: counts.append(event["done"]))
    assert counts == [10, 20, 30, 40, 50]
    tamt.Encoder(model).encode(sentences(50), batch_size=10, show_progress=True)
    assert "encode: 50/50" in capfd.readouterr().err


def test_ctrl_c_stops_an_encoding(model):
    encoder, counts = tamt.Encoder(model), []

    def interrupt(event):
        counts.append(event["done"])
        if len(counts) == 3:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        encoder.encode(sentences(20) * 1000, batch_size=10, progress=interrupt)
    assert counts[-1] < 20_000
    assert encoder.encode("the cat").shape == (32,)


def test_the_callback_may_encode(model):
    encoder, texts, found = tamt.Encoder(model), sentences(20), []
    expected = encoder.encode(texts)
    encoder.encode(texts, progress=lambda event: found.append(encoder.encode(texts)))
    assert found and all(np.array_equal(vectors, expected) for vectors in found)
    other, found = tamt.Encoder(model, threads=1), []
    other.encode(texts, progress=lambda event: found.append(other.encode(texts)))
    assert found and all(np.array_equal(vectors, expected) for vectors in found)


def test_an_exception_of_the_callback_is_raised(model):
    def fail(event):
        raise LookupError("enough")

    with pytest.raises(LookupError, match="enough"):
        tamt.Encoder(model).encode(sentences(20), progress=fail)


@pytest.fixture
def no_switches():
    """A thread keeps the interpreter until it waits for something, or works without the interpreter."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1000)
    yield
    sys.setswitchinterval(usual)


def test_other_threads_run_and_encode_meanwhile(model, no_switches):
    encoder, texts = tamt.Encoder(model), sentences(100)
    expected = encoder.encode(texts)
    turns = 0

    def encode(i, repeats, found, turns_at_batches):
        def heard(event):
            turns_at_batches[i].append(turns)

        found[i] = encoder.encode(texts * repeats, batch_size=50, progress=heard)

    # Where this thread had no turn between two batches of an encoding, there are more batches.
    for repeats in (40 << doublings for doublings in range(8)):
        found, turns_at_batches = [None] * 4, [[] for _ in range(4)]
        workers = [threading.Thread(target=encode, args=(i, repeats, found, turns_at_batches)) for i in range(4)]
        for worker in workers:
            worker.start()
        for worker in workers:
            while worker.is_alive():
                turns += 1
                worker.join(timeout=0.001)
        assert all(np.array_equal(vectors, np.tile(expected, (repeats, 1))) for vectors in found)
        if all(len(set(turns_at)) > 1 for turns_at in turns_at_batches):
            return
    pytest.fail("this thread had no turn during an encoding")


def resident() -> int:
    """Bytes of the process in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no /proc")
def test_repeated_encodings_leave_no_memory_behind(model):
    encoder, texts = tamt.Encoder(model), sentences(3000)
    for _ in range(10):
        encoder.encode(texts)
    start, repetitions = resident(), 30
    for _ in range(repetitions):
        vectors = encoder.encode(texts)
    # Half of what would stay, were each repetition's vectors kept: an allocator may take more memory a few times.
    assert resident() - start < repetitions * vectors.nbytes / 2


def test_vectors_are_those_of_sentence_transformers(model):
    models = pytest.importorskip("sentence_transformers.models")
    package = pytest.importorskip("sentence_transformers")
    transformer = models.Transformer(str(model))
    pooling = models.Pooling(32, pooling_mode="mean")
    other = package.SentenceTransformer(modules=[transformer, pooling], device="cpu")
    texts = sentences(40, seed=2)
    ours = tamt.Encoder(model, precision="f32").encode(texts)
    assert np.allclose(ours, other.encode(texts), atol=1e-5)

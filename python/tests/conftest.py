"""A tiny model, made by the package itself, and what the tests share."""

import json
import os
import random
import signal
from pathlib import Path

import pytest

import tamt

# A shell starts what runs in its background with SIGINT ignored, and Python leaves the signal ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)

WORDS = "the cat dog bird sat ran flew on over under a red blue green mat tree house and then slept ate sang".split()

CONFIG = {
    "model_type": "bert",
    "vocab_size": 5 + len(WORDS),
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 32,
    "type_vocab_size": 2,
}


def sentences(count: int, seed: int = 0) -> list[str]:
    """Lines of random words."""
    choose = random.Random(seed)
    return [" ".join(choose.choices(WORDS, k=choose.randint(3, 20))) for _ in range(count)]


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory):
    """Measurements and tokens of the tests stay among themselves."""
    os.environ["TAMT_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "corpus.txt"
    path.write_text("\n".join(sentences(300)) + "\n")
    return path


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory, corpus: Path, cache: None) -> Path:
    """A BERT of two layers after a few steps of pre-training."""
    root = tmp_path_factory.mktemp("model")
    tokenizer = root / "tokenizer"
    tokenizer.mkdir()
    (tokenizer / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]) + "\n")
    (tokenizer / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": 32})
    )
    config = tokenizer / "config.json"
    config.write_text(json.dumps(CONFIG))
    directory = root / "tiny"
    tamt.pretrain(new=config, tokenizer=tokenizer, corpus=corpus, max_steps=3, block_size=32, output_dir=directory)
    return directory


@pytest.fixture(scope="session")
def ticket(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Path:
    """The directory of a ticket of 70 %."""
    directory = tmp_path_factory.mktemp("ticket") / "magnitude70"
    tamt.find(model, method="magnitude", sparsity=0.7, output_dir=directory)
    return directory


@pytest.fixture(scope="session")
def command() -> str:
    """The command of the same sources, which $TAMT names."""
    path = os.environ.get("TAMT")
    if path is None:
        pytest.skip("TAMT names no command to compare with")
    return path

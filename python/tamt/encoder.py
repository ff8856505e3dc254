"""Texts to vectors."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tamt import _native
from tamt._display import Display
from tamt.errors import SettingError
from tamt.ticket import Ticket

_log = logging.getLogger("tamt")

Vectors = npt.NDArray[np.float32]

# Keywords of `SentenceTransformer.encode` with the values that mean what `Encoder.encode` does, and what else there is.
_SAME_MEANING: dict[str, tuple[tuple[Any, ...], str]] = {
    "convert_to_numpy": ((True,), "vectors are numpy arrays; torch.from_numpy makes tensors of them"),
    "convert_to_tensor": ((False,), "vectors are numpy arrays; torch.from_numpy makes tensors of them"),
    "output_value": (("sentence_embedding",), "Encoder(..., pool='none') gives the vectors of tokens"),
    "precision": (("float32",), "vectors are float32; Encoder(..., precision=...) is that of the computation"),
    "device": ((None, "cpu"), "the engine computes on the CPU"),
    "prompt_name": ((None,), "give the text of the prompt as `prompt`"),
    "truncate_dim": ((None,), "cut the array: vectors[:, :n]"),
    "pool": ((None,), "one process uses all cores; how tokens are pooled is a keyword of Encoder"),
    "chunk_size": ((None,), "there are no processes to divide texts among"),
}


def _check_as_in_sentence_transformers(keywords: dict[str, Any]) -> None:
    for name, value in keywords.items():
        if name not in _SAME_MEANING:
            raise TypeError(f"encode() got an unexpected keyword argument {name!r}")
        values, reason = _SAME_MEANING[name]
        if not any(value is same or value == same for same in values):
            raise SettingError(f"{name}: {value!r} is not supported: {reason}")


class Encoder:
    """A model in memory that turns texts into vectors, dense or under a ticket.

    Pooling, unit length, maximal length and prompt are those of the model's sentence-transformers files, unless a
    keyword says otherwise. The vectors are those of the command `tamt encode`, bit for bit, and do not depend on
    `batch_size`, on `threads` or on the other texts of a call. Several threads may use an encoder at once.

    Args:
        model: Directory in Hugging Face layout, or a hub id.
        ticket: A ticket, its file, or a directory with one; `None` for the dense model.
        precision: Precision of the operands of products, "f32" or "bf16"; "auto" is bf16 where the CPU has
            AVX-512-BF16, else f32.
        allow_other_base: Accept a ticket that was found in other weights.
        kernel: Kernel for masked matrices, "dense" or "sparse"; "auto" chooses by the density of a matrix.
        pool: How token vectors become the text's: "mean", "cls", or "none" for a vector of each token.
        max_length: Cut texts to this many tokens, special tokens included.
        threads: Number of threads, at most 1024; `None` for one per core, which all work of the process shares.

    Raises:
        TamtError: If the model or the ticket cannot be read, or the ticket belongs to another model.
    """

    def __init__(
        self,
        model: str | os.PathLike[str],
        ticket: Ticket | str | os.PathLike[str] | None = None,
        precision: Literal["auto", "f32", "bf16"] = "auto",
        *,
        allow_other_base: bool = False,
        kernel: Literal["auto", "dense", "sparse"] = "auto",
        pool: Literal["none", "cls", "mean"] | None = None,
        max_length: int | None = None,
        threads: int | None = None,
    ) -> None:
        source = ticket._native if isinstance(ticket, Ticket) else ticket
        self._native = _native.Encoder(
            model, source, allow_other_base, precision, kernel, pool, max_length, threads
        )
        for note in self._native.notes:
            _log.info("%s", note)

    def encode(
        self,
        texts: str | Iterable[str] | None = None,
        batch_size: int | None = None,
        normalize: bool | None = None,
        show_progress: bool | None = None,
        *,
        prompt: str | None = None,
        progress: Callable[[dict[str, Any]], None] | None = None,
        sentences: str | Iterable[str] | None = None,
        normalize_embeddings: bool = False,
        show_progress_bar: bool | None = None,
        **as_in_sentence_transformers: Any,
    ) -> Vectors:
        """Encodes texts.

        Args:
            texts: A text, or several.
            batch_size: Most texts of a pass. By default passes take a quarter of a second, with at most some 4,096
                tokens. Vectors do not depend on it.
            normalize: Whether vectors get unit length; `None` for what the model's files say.
            show_progress: Whether a line on stderr counts the texts.
            prompt: What is put before each text, in the place of the model's own prompt.
            progress: Gets a dictionary with `done` and `total` after each pass, on the caller's thread.
            sentences: As in sentence-transformers: another name of `texts`.
            normalize_embeddings: As in sentence-transformers: `True` is `normalize=True`, `False` changes nothing.
            show_progress_bar: As in sentence-transformers: another name of `show_progress`.
            as_in_sentence_transformers: The other keywords of `SentenceTransformer.encode`, with the values that
                mean what this function does: `convert_to_numpy=True`, `convert_to_tensor=False`,
                `output_value="sentence_embedding"`, `precision="float32"`, `device="cpu"`, and `None` for
                `prompt_name`, `device`, `truncate_dim`, `pool` and `chunk_size`.

        Returns:
            `[texts, dimension]` of float32, for a single text `[dimension]`. With `pool="none"` a list of
            `[tokens, dimension]`, for a single text one such array.

        Raises:
            TamtError: If a text cannot be encoded.
            SettingError: If a keyword of sentence-transformers has a value that is not supported.
            TypeError: If there are no texts, or a keyword is unknown.
            Interrupted: On Ctrl-C.
        """
        _check_as_in_sentence_transformers(as_in_sentence_transformers)
        if (texts is None) == (sentences is None):
            raise TypeError("encode() takes texts, under one of the names `texts` and `sentences`")
        texts = sentences if texts is None else texts
        assert texts is not None
        is_single = isinstance(texts, str)
        all_texts = [texts] if isinstance(texts, str) else list(texts)
        if normalize is None and normalize_embeddings:
            normalize = True
        shown = bool(show_progress if show_progress is not None else show_progress_bar)
        with Display(shown, progress) as display:
            hear = display if shown or progress is not None else None
            vectors: Any = self._native.encode(all_texts, batch_size, normalize, prompt, hear)
        result: Vectors = vectors[0] if is_single else vectors
        return result

    @property
    def dimension(self) -> int:
        """Number of values of a vector."""
        return self._native.dimension

    def get_sentence_embedding_dimension(self) -> int:
        """`dimension`, by the name of sentence-transformers."""
        return self.dimension

    @property
    def max_seq_length(self) -> int:
        """Most tokens of a text, special tokens included; longer texts are cut."""
        return self._native.max_length

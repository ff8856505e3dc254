import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

__version__: str

class Encoder:
    notes: list[str]
    dimension: int
    max_length: int
    def __init__(
        self,
        model: str | os.PathLike[str],
        ticket: Ticket | str | os.PathLike[str] | None,
        allow_other_base: bool,
        precision: str,
        kernel: str,
        pool: str | None,
        max_length: int | None,
        threads: int | None,
    ) -> None: ...
    def encode(
        self,
        texts: Sequence[str],
        batch_size: int | None,
        normalize: bool | None,
        prompt: str | None,
        hear: Callable[[dict[str, Any]], None] | None,
    ) -> Any: ...

    def ticket_of(self, masks: Sequence[tuple[str, npt.NDArray[np.bool_]]]) -> Ticket: ...

class Ticket:
    names: list[str]
    provenance: dict[str, Any]
    @staticmethod
    def load(path: str | os.PathLike[str]) -> Ticket: ...
    @staticmethod
    def from_masks(
        masks: Sequence[tuple[str, npt.NDArray[np.bool_]]], base: str | os.PathLike[str]
    ) -> Ticket: ...
    def save(self, path: str | os.PathLike[str]) -> None: ...
    def mask(self, name: str) -> npt.NDArray[np.bool_]: ...
    def sparsity(self, name: str | None = None) -> float: ...
    def rates(self, other: Ticket | None = None) -> dict[str, Any]: ...

def call(
    verb: str, settings: dict[str, Any], hear: Callable[[dict[str, Any]], None] | None = None
) -> dict[str, Any]: ...
def settings(verb: str) -> list[dict[str, Any]]: ...

"""Writes `verbs.pyi`, the types of the verbs, from the settings of the command: `python -m tamt._stubs > verbs.pyi`."""

from __future__ import annotations

from typing import Any

from tamt import _native
from tamt.verbs import VERBS

HEAD = '''\
# Written by `python -m tamt._stubs`.
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from tamt.ticket import Ticket

Hear = Callable[[dict[str, Any]], None]
_Value = str | int | float | os.PathLike[str]
_Values = _Value | Sequence[_Value]

class Run(dict[str, Any]):
    directory: Path
    def __init__(self, values: dict[str, Any], directory: Path) -> None: ...
    def ticket(self) -> Ticket: ...

VERBS: dict[str, str]
'''


def _type(setting: dict[str, Any]) -> str:
    if setting["kind"] == "switch":
        return "bool"
    if setting["choices"]:
        return "Literal[" + ", ".join(f'"{name}"' for name in setting["choices"]) + "]"
    return "_Values" if setting["kind"] == "many" else "_Value"


def stubs() -> str:
    """The content of `verbs.pyi`."""
    text = HEAD
    for name, verb in VERBS.items():
        text += f"\ndef {name}(\n    model: str | os.PathLike[str] | None = None,\n"
        if name == "predict":
            text += "    texts: Iterable[str] | Iterable[tuple[str, str]] | None = None,\n"
        text += "    *,\n    progress: Hear | None = None,\n    show_progress: bool = False,\n"
        for setting in _native.settings(verb):
            if setting["name"] != "model":
                text += f"    {setting['name']}: {_type(setting)} | None = None,\n"
        result = {"evaluate": "dict[str, Any]", "predict": "Any"}.get(name, "Run")
        text += f") -> {result}: ...\n"
    return text


if __name__ == "__main__":
    print(stubs(), end="")

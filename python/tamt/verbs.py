"""The verbs of the command `tamt` as functions, whose keywords are the command's settings.

Every keyword is a flag of the command with underscores: `max_steps=1000` is `--max-steps 1000`, `resume=True` is
`--resume`, and `None` leaves the default. The command defines names, values, defaults and checks, so an unknown keyword
is refused with the nearest one. A run goes on with the command's `--resume` and the other way round.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tamt import _native
from tamt._display import Display
from tamt.errors import SettingError
from tamt.ticket import Ticket

Hear = Callable[[dict[str, Any]], None]


class Run(dict[str, Any]):
    """The result of a run: the values of its `eval_results.json`, and its directory."""

    def __init__(self, values: dict[str, Any], directory: Path) -> None:
        super().__init__(values)
        self.directory = directory

    def ticket(self) -> Ticket:
        """The ticket that `find` wrote."""
        return Ticket.load(self.directory)


def find(
    model: str | os.PathLike[str] | None = None,
    *,
    progress: Hear | None = None,
    show_progress: bool = False,
    **settings: Any,
) -> Run:
    """Finds a subnetwork of a pre-trained encoder and writes it as a ticket."""
    return _run("find", model, settings, progress, show_progress)


def tune(
    model: str | os.PathLike[str] | None = None,
    *,
    progress: Hear | None = None,
    show_progress: bool = False,
    **settings: Any,
) -> Run:
    """Fine-tunes a ticket, or the dense model, on a task."""
    return _run("tune", model, settings, progress, show_progress)


def pretrain(
    model: str | os.PathLike[str] | None = None,
    *,
    progress: Hear | None = None,
    show_progress: bool = False,
    **settings: Any,
) -> Run:
    """Trains a new encoder, or trains a given one further, on masked language modelling."""
    return _run("pretrain", model, settings, progress, show_progress)


def evaluate(
    model: str | os.PathLike[str] | None = None,
    *,
    progress: Hear | None = None,
    show_progress: bool = False,
    **settings: Any,
) -> dict[str, Any]:
    """Measures a model, dense or under a ticket, on text or on a task."""
    return _call("eval", model, settings, progress, show_progress)


def predict(
    model: str | os.PathLike[str] | None = None,
    texts: Iterable[str] | Iterable[tuple[str, str]] | None = None,
    *,
    progress: Hear | None = None,
    show_progress: bool = False,
    **settings: Any,
) -> Any:
    """Predicts labels, numbers or answers for new texts with a fine-tuned model.

    With `texts`, single texts or pairs (for spans: question and context), the result is a list with a dictionary for
    each: `label` and `probabilities`, `value`, or `answer` with its place and score. Else `input` and `output` name
    files, as for the command, and the result says how many records they have.
    """
    if texts is None:
        return _call("predict", model, settings, progress, show_progress)
    of_files = ("input", "output", "format", "output_format", "columns", "id_column", "no_header")
    taken = [name for name in of_files if settings.get(name) is not None]
    if taken:
        raise SettingError(f"{taken[0]}: texts are given, so no files are read or written")
    if isinstance(texts, str):
        raise SettingError("texts: a list of texts is expected, not one text")
    rows = [(text,) if isinstance(text, str) else tuple(text) for text in texts]
    if not rows:
        return []
    columns = ["first", "second"][: len(rows[0])]
    for number, row in enumerate(rows):
        if len(row) != len(columns) or not all(isinstance(text, str) for text in row):
            raise SettingError(f"texts: number {number} is not {'a text' if len(columns) == 1 else 'a pair of texts'}")
    with tempfile.TemporaryDirectory(prefix="tamt-") as directory:
        source, target = Path(directory, "texts.jsonl"), Path(directory, "predictions.jsonl")
        lines = (json.dumps(dict(zip(columns, row, strict=True))) for row in rows)
        source.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        files = {"input": source, "output": target, "columns": columns}
        _call("predict", model, {**settings, **files}, progress, show_progress)
        # `splitlines` would cut at separators that answers may hold.
        return [json.loads(line) for line in target.read_text(encoding="utf-8").split("\n") if line]


def _call(
    verb: str,
    model: str | os.PathLike[str] | None,
    settings: dict[str, Any],
    progress: Hear | None,
    show_progress: bool,
) -> dict[str, Any]:
    if model is not None:
        settings = {"model": model, **settings}
    with Display(show_progress, progress) as display:
        return _native.call(verb, settings, display)


def _run(
    verb: str,
    model: str | os.PathLike[str] | None,
    settings: dict[str, Any],
    progress: Hear | None,
    show_progress: bool,
) -> Run:
    result = _call(verb, model, settings, progress, show_progress)
    # A file of settings may name the directory, too.
    return Run(result, Path(settings.get("output_dir") or result["output_dir"]))


def _described(verb: str) -> str:
    """The settings of a verb for `help()`."""
    text, heading = "\n\n    Settings:\n", ""
    for setting in _native.settings(verb):
        if setting["heading"] != heading:
            heading = setting["heading"]
            text += f"\n    {heading}:\n"
        choices = f" ({', '.join(setting['choices'])})" if setting["choices"] else ""
        text += f"        {setting['name']}{choices}: {setting['help']}\n"
    return text


_EVENTS = """
    `progress` gets a dictionary for each event, on the caller's thread: its `event` is `stage`, `step`, `evaluating`,
    `evaluated`, `progress` or `note`. `show_progress` shows the events in a line on stderr. Notes go to the logger
    `tamt`.

    Raises:
        TamtError: With the message of the command.
        Interrupted: On Ctrl-C; a run that has taken a step saves a checkpoint first, and goes on with `resume=True`.
"""

# The verb of the command behind each function.
VERBS = {"find": "find", "tune": "tune", "pretrain": "pretrain", "evaluate": "eval", "predict": "predict"}

for _name, _verb in VERBS.items():
    _function = globals()[_name]
    _function.__doc__ += _described(_verb) + _EVENTS

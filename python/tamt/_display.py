"""Events of the engine as a line on stderr."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

Event = dict[str, Any]
Hear = Callable[[Event], None]

_log = logging.getLogger("tamt")

# Seconds between two states of the line.
_INTERVAL = 0.1


class Display:
    """Shows the latest event of a call in one line of stderr; notes go to the logger `tamt`."""

    def __init__(self, shown: bool, hear: Hear | None = None) -> None:
        self._shown = shown
        self._hear = hear
        self._last = 0.0
        self._width = 0

    def __enter__(self) -> Display:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._width:
            print(file=sys.stderr, flush=True)

    def __call__(self, event: Event) -> None:
        if event["event"] == "note":
            _log.info("%s", event["text"])
        elif self._shown:
            self._show(event)
        if self._hear is not None:
            self._hear(event)

    def _show(self, event: Event) -> None:
        done = event.get("done", event.get("step"))
        now = time.monotonic()
        is_last = done == event.get("total") or event["event"] == "evaluated"
        if now - self._last < _INTERVAL and not is_last:
            return
        self._last = now
        text = _line(event, done)
        print("\r" + text.ljust(self._width), end="", file=sys.stderr, flush=True)
        self._width = len(text)


def _line(event: Event, done: int | None) -> str:
    name = event.get("work", event.get("stage", ""))
    total = event.get("total")
    count = f"{done}/{total}" if total is not None else f"{done}"
    if event["event"] == "evaluating":
        return f"{name}: evaluating {count}"
    if event["event"] == "evaluated":
        # A value that is not finite has no number in JSON.
        shown = {key: "nan" if value is None else f"{value:.4g}" for key, value in event["values"].items()}
        values = "  ".join(f"{key} {value}" for key, value in shown.items())
        return f"{name}: evaluated at step {done}: {values}"
    if event["event"] == "stage":
        return f"{name}: {event['start']}/{total}"
    loss = f"  loss {event['loss']:.4f}" if "loss" in event else ""
    return f"{name}: {count}{loss}"

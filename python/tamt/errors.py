"""The exceptions of the package. Their messages are those of the command, with keywords in the place of flags."""

from __future__ import annotations

import os


class TamtError(Exception):
    """Any failure of the package."""


class SettingError(TamtError, ValueError):
    """A setting's value, or a combination of settings, has no meaning."""


class UnknownSettingError(SettingError, TypeError):
    """A keyword is no setting of the function; the message names the nearest one."""


class TicketError(TamtError):
    """A file is no ticket, or a ticket belongs to another model."""


class ModelError(TamtError):
    """A model cannot be read, or has no head for the work."""


class DataError(TamtError):
    """A text, a task or its data cannot be read."""


class RunError(TamtError):
    """A run directory is occupied, or a run has no finite loss."""


class FileError(TamtError, OSError):
    """A file cannot be read or written."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C stopped the work.

    Attributes:
        step: The last completed step of a run.
        checkpoint: The checkpoint that the run goes on from with `resume=True`; `None` if there was nothing to save.
    """

    def __init__(self, message: str, step: int = 0, checkpoint: str | os.PathLike[str] | None = None) -> None:
        super().__init__(message)
        self.step = step
        self.checkpoint = checkpoint

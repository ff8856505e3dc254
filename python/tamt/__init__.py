"""Sparse subnetworks ("tickets") of pre-trained encoders: find, fine-tune, and encode with them.

* `Encoder` turns texts into vectors, as `SentenceTransformer` does.
* `find`, `tune`, `evaluate`, `predict` and `pretrain` are the verbs of the command `tamt`, with its settings as
  keywords.
* `Ticket` holds the masks of a ticket as numpy arrays.
* All errors are `TamtError`s; `Interrupted` is the `KeyboardInterrupt` of a run that saved a checkpoint.
"""

from tamt._native import __version__
from tamt.encoder import Encoder
from tamt.errors import (
    DataError,
    FileError,
    Interrupted,
    ModelError,
    RunError,
    SettingError,
    TamtError,
    TicketError,
    UnknownSettingError,
)
from tamt.ticket import Ticket
from tamt.verbs import Run, evaluate, find, predict, pretrain, tune

__all__ = [
    "DataError",
    "Encoder",
    "FileError",
    "Interrupted",
    "ModelError",
    "Run",
    "RunError",
    "SettingError",
    "TamtError",
    "Ticket",
    "TicketError",
    "UnknownSettingError",
    "__version__",
    "evaluate",
    "find",
    "predict",
    "pretrain",
    "tune",
]

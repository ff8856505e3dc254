"""Tickets: the masks of a model's matrices."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from tamt import _native
from tamt.errors import SettingError, TicketError

if TYPE_CHECKING:
    from tamt.encoder import Encoder

Mask = npt.NDArray[np.bool_]
Tensor = TypeVar("Tensor")



class Masks(Mapping[str, Mask]):
    """The masks of a ticket by canonical names, unpacked one by one: `True` keeps a weight."""

    def __init__(self, native: _native.Ticket) -> None:
        self._native = native

    def __getitem__(self, name: str) -> Mask:
        return self._native.mask(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._native.names)

    def __len__(self) -> int:
        return len(self._native.names)

    def __repr__(self) -> str:
        return f"Masks({self._native.names})"


class Ticket:
    """One bit for each weight of a model's matrices: `True` keeps the pre-trained weight.

    `Ticket.load` reads one, `Ticket.from_masks` makes one, and `find` finds one.
    """

    def __init__(self, native: _native.Ticket) -> None:
        self._native = native

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Ticket:
        """Reads a ticket file, or `ticket.safetensors` in a directory.

        Raises:
            TicketError: If the file is of another kind.
            FileError: If the file cannot be read or is damaged.
        """
        return cls(_native.Ticket.load(path))

    @classmethod
    def from_masks(cls, masks: Mapping[str, Any], base: Encoder | str | os.PathLike[str]) -> Ticket:
        """Makes a ticket of masks.

        Args:
            masks: For names of matrices, as the model's state dictionary or a file of masks has them, arrays or tensors
                of the matrix's shape with booleans, or with zeros and ones. Matrices without a mask stay dense.
            base: The model that the masks belong to: a directory, a hub id, or an `Encoder` of it.

        Raises:
            TicketError: If a name is that of no matrix to prune, or a mask has another shape.
            SettingError: If a mask has other values, or there are no masks.
        """
        given = [(name, _as_mask(name, mask)) for name, mask in masks.items()]
        if isinstance(base, (str, os.PathLike)):
            return cls(_native.Ticket.from_masks(given, base))
        return cls(base._native.ticket_of(given))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the ticket, as the command does."""
        self._native.save(path)

    @property
    def masks(self) -> Masks:
        """The masks by canonical names: a mapping to boolean arrays `[rows, columns]`."""
        return Masks(self._native)

    @property
    def provenance(self) -> dict[str, Any]:
        """Base model, method, requested sparsity, seed, steps, and digests."""
        return self._native.provenance

    def sparsity(self, name: str | None = None) -> float:
        """The share of dropped weights: of a matrix, or of all masked matrices."""
        return self._native.sparsity(name)

    def sparsities(self) -> dict[str, float]:
        """The share of dropped weights of each matrix."""
        return {matrix["name"]: matrix["sparsity"] for matrix in self._native.rates()["matrices"]}

    def jaccard(self, other: Ticket) -> float:
        """The similarity of two tickets: the mean over matrices of `|A and B| / |A or B|` of kept weights.

        Raises:
            TicketError: If the tickets do not mask the same matrices.
        """
        return float(self._native.rates(other._native)["jaccard"])

    def apply_to(self, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The state dictionary with exact zeros for dropped weights; the given one stays as it is.

        Args:
            state_dict: Torch tensors or numpy arrays by name, with any prefix (`bert.`, `0.auto_model.`). A tensor that
                shares the memory of a masked one, such as the tied decoder of an MLM head, gets the same zeros.

        Returns:
            A new dictionary. Tensors without a mask are the same objects, masked ones are copies of the same type.

        Raises:
            TicketError: If a matrix of the ticket has another shape or is missing; the pooler may be missing.
        """
        keys = list(state_dict)
        applied = dict(state_dict)
        copies: dict[Any, Any] = {}
        for name in self.masks:
            found = [key for key in keys if key == name or key.endswith("." + name)]
            if not found:
                if name.startswith("pooler."):
                    continue
                raise TicketError(f"the ticket does not fit at {name}: the state dictionary has no such tensor")
            mask = self.masks[name]
            for key in found:
                applied[key] = _masked(name, state_dict[key], mask)
                copies[_memory(state_dict[key])] = applied[key]
        for key in keys:
            tensor = state_dict[key]
            if applied[key] is tensor and hasattr(tensor, "shape") and _memory(tensor) in copies:
                applied[key] = copies[_memory(tensor)]
        return applied

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ticket) and self._native == other._native

    def __repr__(self) -> str:
        origin = self.provenance
        share = f"{self.sparsity():.4f}"
        return f"Ticket({origin['method']} of {origin['base_model']!r}, {len(self.masks)} masks, sparsity {share})"


def _as_mask(name: str, given: Any) -> Mask:
    """A mask as a contiguous boolean array."""
    if hasattr(given, "detach"):
        given = given.detach().cpu()
        # numpy has no bf16.
        given = (given.float() if given.is_floating_point() else given).numpy()
    values = np.asarray(given)
    if values.dtype != np.bool_ and not np.isin(values, (0, 1)).all():
        raise SettingError(f"masks: {name} has other values than 0 and 1")
    if values.ndim != 2:
        raise TicketError(f"the ticket does not fit at {name}: a mask has two dimensions, not {values.ndim}")
    return np.ascontiguousarray(values, dtype=np.bool_)


def _masked(name: str, tensor: Any, mask: Mask) -> Any:
    """A copy of a tensor with zeros where the mask drops."""
    if tuple(tensor.shape) != mask.shape:
        there, here = " x ".join(map(str, mask.shape)), " x ".join(map(str, tensor.shape))
        raise TicketError(f"the ticket does not fit at {name}: it is {there} in the ticket and {here} in the model")
    if isinstance(tensor, np.ndarray):
        copy = tensor.copy()
        copy[~mask] = 0
        return copy
    # The methods of torch's tensors. NaN and infinity become 0 as well, which a product would keep.
    copy = tensor.detach().clone()
    dropped = copy.new_tensor(~mask).bool()
    return copy.masked_fill_(dropped, 0)


def _memory(tensor: Any) -> Any:
    """What tensors of one shape over the same memory have in common."""
    if isinstance(tensor, np.ndarray):
        return (tensor.__array_interface__["data"][0], tensor.shape, tensor.strides)
    if hasattr(tensor, "data_ptr"):
        return (tensor.data_ptr(), tuple(tensor.shape), tensor.stride())
    return id(tensor)

"""Classes of a batch: who belongs together, worked out on the device of the labels.

Shapes: B = anchors, M = references.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


@dataclass
class Classes:
    """Classes of anchors among references.

    Attributes:
        code: A number for the class of each anchor, float32 ``(B,)``. Floats compare many times faster than int64 on
            CPUs, and float32 is exact for up to 2^24 references.
        reference_code: The same for the references, ``(M,)``; -1 is the code of a class without references.
        size: Number of references of the class of each anchor, int64 ``(B,)``.
        start: Where they start among the references sorted by class, int64 ``(B,)``.
        members: The references sorted by class, int64 ``(M,)``; None if they are in this order as they are.
        place: Position of each anchor among the references of its class, int64 ``(B,)``; None if it is none of them.
        order: The order of the anchors to which all this belongs, int64 ``(B,)``; None: as they were given.
    """

    code: Tensor
    reference_code: Tensor
    size: Tensor
    start: Tensor
    members: Tensor | None
    place: Tensor | None
    order: Tensor | None
    _sizes: npt.NDArray[np.int64] | None = field(default=None, init=False)

    @property
    def sizes(self) -> npt.NDArray[np.int64]:
        """:attr:`size` on the host."""
        if self._sizes is None:
            self._sizes = self.size.numpy(force=True)
        return self._sizes

    def read(self, unsure: Tensor | None) -> bool:
        """Read a bool ``()``, and with it :attr:`sizes` if they were not read before; None is False."""
        if unsure is None:
            return False
        if self._sizes is not None:
            return bool(unsure)
        together = torch.cat([self.size, unsure[None]]).numpy(force=True)
        self._sizes = together[:-1]
        return bool(together[-1])


def own_classes(labels: Tensor, *, sort: bool) -> Classes:
    """Classes of a batch that is its own reference.

    Args:
        labels: Class of each anchor, int64 ``(B,)``.
        sort: Whether to put the anchors into the order of their classes, large classes first. Mining is then faster.
    """
    ascending, members = labels.sort(stable=True)  # (B,), (B,)
    step = torch.arange(len(labels), device=labels.device)  # (B,)
    wanted = ascending if sort else labels  # (B,)
    start = torch.searchsorted(ascending, wanted)  # (B,)
    size = torch.searchsorted(ascending, wanted, right=True) - start  # (B,)
    if sort:
        size, large_first = size.sort(descending=True, stable=True)  # (B,), (B,)
        order = members.index_select(0, large_first)  # (B,)
        place = (step - start).index_select(0, large_first)  # (B,)
        start = step - place  # (B,)
        code = start.float()  # (B,)
        return Classes(code, code, size, start, None, place, order)
    place = torch.empty_like(step).scatter_(0, members, step) - start  # (B,)
    code = start.float()  # (B,)
    return Classes(code, code, size, start, members, place, None)


def reference_classes(labels: Tensor, reference_labels: Tensor) -> Classes:
    """Classes of anchors among other references.

    Args:
        labels: Class of each anchor, int64 ``(B,)``.
        reference_labels: Class of each reference, int64 ``(M,)``.
    """
    ascending, members = reference_labels.sort(stable=True)  # (M,), (M,)
    start = torch.searchsorted(ascending, labels)  # (B,)
    size = torch.searchsorted(ascending, labels, right=True) - start  # (B,)
    code = start.masked_fill(size == 0, -1).float()  # (B,)
    return Classes(code, torch.searchsorted(ascending, reference_labels).float(), size, start, members, None, None)

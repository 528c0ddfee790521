"""A measurement of the memory that a computation holds."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode


class Live(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Bytes of all tensors that were made since it began and still exist, and their peak."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.storages: dict[int, tuple[StorageWeakRef, int]] = {}
        self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = {one.untyped_storage().data_ptr() for one in args if isinstance(one, Tensor)}
        for one in result if isinstance(result, tuple | list) else (result,):
            if isinstance(one, Tensor) and one.untyped_storage().data_ptr() not in given:
                storage = one.untyped_storage()
                reference = StorageWeakRef(storage)  # type: ignore[no-untyped-call]
                self.storages[reference.cdata] = (reference, storage.nbytes())
        gone = [key for key, (reference, _) in self.storages.items() if reference.expired()]  # type: ignore[no-untyped-call]
        for key in gone:
            del self.storages[key]
        self.peak = max(self.peak, sum(size for _, size in self.storages.values()))
        return result

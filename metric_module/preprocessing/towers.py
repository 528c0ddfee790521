"""Preprocessing of several kinds of items, one for each tower of an encoder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor
from typing_extensions import override

from metric_module.errors import UserError
from metric_module.preprocessing.base import VERSION, Preprocessing


@dataclass(frozen=True)
class TowersInput(Preprocessing):
    """Items of several kinds, such as texts and images, for a :class:`metric_module.encoders.MultiEncoder`.

    An item is read by the preprocessing of its tower, ``towers[name](item)``.

    Args:
        towers: Preprocessing by name of the tower.

    Raises:
        UserError: If there is no tower, or a tower has towers itself.
    """

    kind: ClassVar[str] = "towers"

    towers: Mapping[str, Preprocessing]

    def __post_init__(self) -> None:
        inside = list(self.towers.values()) if isinstance(self.towers, Mapping) else []
        if not inside or any(not isinstance(one, Preprocessing) or one.kind == self.kind for one in inside):
            raise UserError(f"preprocessing: towers: expected a preprocessing for each name, got {self.towers!r}")

    @override
    def __call__(self, item: Any) -> Tensor | str:
        """Reject the item: which tower reads it is unknown.

        Raises:
            UserError: Always.
        """
        raise UserError(f"expected a tower to read an item with, one of {', '.join(self.towers)}")

    @override
    def to_json(self) -> str:
        """Return the version, the kind and the preprocessing of each tower as a JSON object."""
        inside = {name: json.loads(one.to_json()) for name, one in self.towers.items()}
        return json.dumps({"version": VERSION, "kind": self.kind, "towers": inside})

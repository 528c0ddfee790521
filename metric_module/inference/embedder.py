"""A trained encoder as one object: it reads items, embeds them, and knows its distance and its threshold.

Legend: N = items, B = items of a batch, A = first and M = second items of pairs, D = embedding size.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from metric_module.checks import check_count
from metric_module.config.trust import vouch_for
from metric_module.distances import Distance
from metric_module.encoders.base import embed
from metric_module.encoders.towers import MultiEncoder
from metric_module.errors import UserError, printable
from metric_module.evaluation.exact.any_distance import exact_distance
from metric_module.functional import full_precision, nonfinite_rows
from metric_module.inference.arguments import threshold_or
from metric_module.inference.trained import Figures, Trained, read_trained
from metric_module.preprocessing import Preprocessing, TextInput, TowersInput
from metric_module.storage.weights import fingerprint

_THREADS = min(8, os.cpu_count() or 1)  # that read items: decoding releases the interpreter


class Match(NamedTuple):
    """Whether two items show the same thing.

    Attributes:
        same: Whether their distance is at most the threshold.
        distance: Distance of their embeddings.
        threshold: Largest distance that counts as the same.
    """

    same: bool
    distance: float
    threshold: float


class UnreadableItemsError(UserError):
    """Items that cannot be read, with the reason of each by position."""

    def __init__(self, names: Sequence[str], reasons: dict[int, str]) -> None:
        listed = ", ".join(f"{names[position]} ({reason})" for position, reason in [*reasons.items()][:20])
        more = f" and {len(reasons) - 20} more" if len(reasons) > 20 else ""
        super().__init__(f"{len(reasons)} of {len(names)} items cannot be read: {listed}{more}")
        self.reasons = reasons


class Embedder:
    """Embeds items with a trained encoder.

    Args:
        encoder: The encoder; it is moved to ``device`` and switched to evaluation mode.
        distance: The distance that it was trained with.
        preprocessing: How one item becomes an encoder input; None: :meth:`embed` takes encoder inputs alone.
        threshold: Distance up to which two samples count as the same, or None.
        figures: Figures of the training by split and name.
        device: The device; None is the accelerator of this machine, otherwise the CPU.
        config: Plain content of the groups ``encoder`` and ``distance``, from which an exported folder is built.

    Attributes:
        distance_function: The distance, on the CPU.

    Example:
        >>> from metric_module.distances import Euclidean
        >>> from metric_module.encoders import MLP
        >>> from metric_module.preprocessing import VectorInput
        >>> embedder = Embedder(MLP(in_features=3), Euclidean(), VectorInput(3), threshold=0.5, device="cpu")
        >>> embedder.same([1, 2, 3], [1, 2, 3])
        Match(same=True, distance=0.0, threshold=0.5)
    """

    def __init__(
        self,
        encoder: nn.Module,
        distance: Distance,
        preprocessing: Preprocessing | None = None,
        threshold: float | None = None,
        figures: Figures | None = None,
        device: str | torch.device | None = None,
        config: dict[str, Any] | None = None,
    ) -> None:
        best = torch.accelerator.current_accelerator(check_available=True) or "cpu"
        try:
            self.device = torch.device(best if device is None else device)
            self.encoder = encoder.to(self.device).eval()
        except (RuntimeError, NotImplementedError, AssertionError) as error:  # torch raises many kinds
            raise UserError(f"device={device}: {str(error).splitlines()[0]}; give cpu, cuda or mps") from error
        self._whole = self.encoder  # with all towers
        self.distance_function = distance.cpu().eval()
        self.preprocessing = preprocessing
        self.threshold = threshold
        self.figures = figures or {}
        self.config = config
        self.embedding_dim = int(getattr(encoder, "embedding_dim", 0))

    @classmethod
    def load(
        cls,
        path: str | Path,
        device: str | torch.device | None = None,
        trusted: Sequence[str] = (),
        tower: str | None = None,
    ) -> Self:
        """Load a trained encoder; no code in the files is run.

        Args:
            path: Folder of a run (its best checkpoint, otherwise its newest), a checkpoint, or a folder written by
                ``task=export task.format=hugging_face``.
            device: The device; None is the accelerator of this machine, otherwise the CPU.
            trusted: Packages, or names in them, of your own encoders and distances: ``["my_encoders"]``.
            tower: Name of one encoder of a :class:`metric_module.encoders.MultiEncoder`, such as ``image`` or ``text``.

        Raises:
            UserError: If there is nothing to load, a file is damaged, a class in it is neither part of this project nor
                trusted, or ``tower`` is missing or unknown.
        """
        vouch_for(*trusted)
        found = read_trained(path)
        whole = found.encoder
        if isinstance(found.encoder, MultiEncoder) or tower is not None:
            found = _tower(found, tower)
        made = cls(**found._asdict(), device=device)
        made._whole = whole
        return made

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the weights, of all towers together: an index belongs to the model that embedded it."""
        return fingerprint(self._whole)

    def embed(self, items: Sequence[Any] | Tensor, batch_size: int = 256) -> Tensor:
        """Embed items, batch by batch.

        Args:
            items: N paths, PIL images, texts, arrays, or whatever else the preprocessing reads; or a tensor of encoder
                inputs, first dimension N.
            batch_size: B; it changes memory and time, and embeddings by rounding alone.

        Returns:
            Embeddings, float32 ``(N, D)``, on the CPU.

        Raises:
            UnreadableItemsError: Items that cannot be read, all of them by name.
            UserError: If the items are of another kind, the batch size is less than 1, or an embedding is NaN or
                infinite.
        """
        single = isinstance(items, str | bytes | os.PathLike | Mapping)
        if single or not (hasattr(items, "__getitem__") and hasattr(items, "__len__")):
            got = type(items).__name__
            raise UserError(
                f"expected a list of items or a tensor of inputs, got a {got}; for a single item give [item]"
            )
        check_count("batch_size", batch_size)
        if not len(items):
            return torch.empty(0, self.embedding_dim)
        batches = torch.split(items, batch_size) if isinstance(items, Tensor) else self._batches(items, batch_size)
        with torch.inference_mode(), full_precision(self.device.type):
            embeddings = torch.cat([*map(self._embedded, batches)])  # (N, D)
        bad = nonfinite_rows(embeddings).tolist()
        if bad:
            names = ", ".join(self.name_of(items[position], position) for position in bad[:5])
            raise UserError(f"{type(self.encoder).__name__}: NaN or infinity in {len(bad)} embeddings: {names}")
        return embeddings

    def distance(self, a: Tensor, b: Tensor) -> Tensor:
        """Compute all distances between two sets of embeddings, as the evaluation does.

        Args:
            a: Embeddings ``(A, D)``.
            b: Embeddings ``(M, D)``.

        Returns:
            Distances ``(A, M)``, float64, on the CPU.
        """
        with torch.inference_mode():
            return exact_distance(self.distance_function, torch.device("cpu"))(a.cpu().double(), b.cpu().double())

    def same(self, first: Any, second: Any, threshold: float | None = None) -> Match:
        """Decide whether two items show the same thing.

        Args:
            first: An item.
            second: Another one.
            threshold: Largest distance that counts as the same; None is that of the training.

        Raises:
            UserError: If an item cannot be read, or there is no threshold.
        """
        limit = threshold_or(threshold, self.threshold)
        embeddings = self.embed([first, second])  # (2, D)
        distance = float(self.distance(embeddings[:1], embeddings[1:]))
        return Match(distance <= limit, distance, limit)

    def read(self, item: Any) -> Any:
        """Read one item as an encoder input, without a batch dimension.

        Args:
            item: Whatever the preprocessing reads; a tensor, or a text, if there is none.

        Raises:
            UserError: If the item is of another kind; a damaged file raises errors of its reader.
        """
        if self.preprocessing is not None:
            return self.preprocessing(item)
        if isinstance(item, Tensor | str):
            return item
        raise UserError(
            f"the training did not define how a {type(item).__name__} becomes an encoder input: give a tensor of inputs"
        )

    def name_of(self, item: Any, position: int) -> str:
        """Return the name of an item: its path, its text, or its position.

        Args:
            item: The item.
            position: Its position among the items.
        """
        path = getattr(item, "filename", "") or item  # PIL images know the file that they were read from
        named = isinstance(path, str | os.PathLike) and path != ""
        shown = os.fsdecode(path) if named else f"item {position}"
        return printable(shown if len(shown) <= 200 or not self.takes_texts else f"{shown[:200]}...")

    @property
    def takes_texts(self) -> bool:
        """Whether items are texts, so that a ``str`` is not a path."""
        return isinstance(self.preprocessing, TextInput)

    def _batches(self, items: Sequence[Any], batch_size: int) -> Iterator[Any]:
        """Read items in threads, a batch at a time; after the first unreadable one, only read to name the others."""
        reasons: dict[int, str] = {}
        with ThreadPoolExecutor(_THREADS) as pool:
            for first in range(0, len(items), batch_size):
                part = items[first : first + batch_size]
                inputs = list(pool.map(self._read_or_reason, part))
                failed = {first + at: str(one) for at, one in enumerate(inputs) if isinstance(one, _Reason)}
                reasons |= failed
                if not reasons:
                    yield inputs if isinstance(inputs[0], str) else torch.stack(inputs)  # (B, ...)
        if reasons:
            raise UnreadableItemsError([self.name_of(item, at) for at, item in enumerate(items)], reasons)

    def _read_or_reason(self, item: Any) -> Any:
        """Read an item, or return why that is not possible."""
        try:
            return self.read(item)
        except Exception as error:  # Pillow raises many kinds
            return _Reason(printable((str(error).splitlines() or [type(error).__name__])[0]))

    def _embedded(self, inputs: Any) -> Tensor:
        """Embed a batch of encoder inputs, float32 ``(B, D)`` on the CPU."""
        inputs = inputs.to(self.device) if isinstance(inputs, Tensor) else inputs
        embeddings = embed(self.encoder, inputs)
        if len(embeddings) != len(inputs):
            name, got = type(self.encoder).__name__, len(embeddings)
            raise UserError(f"{name}: expected one embedding for each of {len(inputs)} items, got {got}")
        return embeddings.float().cpu()


class _Reason(str):
    """Why an item cannot be read."""


def _tower(found: Trained, name: str | None) -> Trained:
    """Select one encoder of several."""
    towers = dict(found.encoder.encoders) if isinstance(found.encoder, MultiEncoder) else {}
    if name is None or name not in towers:
        expected = f"one of {', '.join(towers)}" if towers else "none, as there is one encoder"
        advice = "give tower=<name>" if towers else "leave tower out"
        raise UserError(f"tower: expected {expected}, got {name!r}; {advice}")
    inside = found.preprocessing.towers if isinstance(found.preprocessing, TowersInput) else {}
    config = found.config | {"encoder": found.config["encoder"]["encoders"][name]}
    return found._replace(encoder=towers[name], preprocessing=inside.get(name), config=config)

"""Logger that writes all figures to one csv file."""

from __future__ import annotations

import csv
import io
import time
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only
from typing_extensions import override

from metric_module.storage.atomic import write_whole


class MetricsCSV(Logger):
    """A csv file with one row for each step and one column for each figure, always replaced as a whole.

    If the file exists, training is being resumed in the same folder: rows before the first new step are kept.

    Args:
        path: Path of the csv file.
        interval: Seconds between two writes while training runs.
    """

    def __init__(self, path: str, interval: float = 5.0) -> None:
        super().__init__()
        self.path = Path(path)
        self.interval = interval
        self._rows: dict[int, dict[str, Any]] | None = None
        self._written = time.monotonic()

    @property
    @override
    def name(self) -> str:
        """Name of the experiment."""
        return "csv"

    @property
    @override
    def version(self) -> str:
        """Version of the experiment; there is only one."""
        return ""

    @override
    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add figures to the row of a step."""
        place = 0 if step is None else step
        if self._rows is None:
            self._rows = self._earlier(place)
        self._rows.setdefault(place, {}).update(metrics)
        if time.monotonic() - self._written >= self.interval:
            self.save()

    @override
    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Do nothing: ``config.yaml`` has the hyper-parameters."""

    @override
    @rank_zero_only
    def save(self) -> None:
        """Write the file."""
        if self._rows is None:
            return
        names = sorted({name for row in self._rows.values() for name in row} - {"epoch"})
        text = io.StringIO()
        writer = csv.DictWriter(text, ["step", "epoch", *names], lineterminator="\n")
        writer.writeheader()
        for step in sorted(self._rows):
            writer.writerow({"step": step, **self._rows[step]})
        write_whole(self.path, text.getvalue())
        self._written = time.monotonic()

    @override
    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write the file when a fit, validation or test ends or fails."""
        self.save()

    def _earlier(self, first: int) -> dict[int, dict[str, Any]]:
        """Rows of the file before the first new step."""
        if not self.path.is_file():
            return {}
        with self.path.open(newline="") as file:
            rows = {int(row.pop("step")): row for row in csv.DictReader(file)}
        kept = {step: row for step, row in rows.items() if step < first}
        return {step: {name: value for name, value in row.items() if value} for step, row in kept.items()}

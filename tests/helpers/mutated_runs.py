"""A tiny run with one shipped yaml broken, and the trace that it should not end in."""

from __future__ import annotations

import shutil
import traceback
from pathlib import Path

import numpy as np
from PIL import Image

from tests.helpers.command_line import Command
from tests.helpers.mutations import Mutation
from tests.helpers.relation_files import captions, ratings

_ARRAYS = ("datamodule=arrays", "datamodule.path=arrays.npz", "encoder=mlp", "++encoder.in_features=5")
_SHORT = ("trainer.accelerator=cpu", "trainer.max_steps=2", "report=false", "++datamodule.num_workers=0")
_DATA = {
    "arrays": ("datamodule.path=arrays.npz",),
    "image_folder": ("datamodule.root=images",),
    "manifest": ("datamodule.table=images.csv", "datamodule.image=image"),
    "captions": ("datamodule.path=captions/captions.csv",),
    "movielens": ("datamodule.path=ratings",),
}


def write_data(folder: Path) -> None:
    """Write a small data set of each kind: vectors, images of classes, captions and ratings.

    Args:
        folder: Where they go.
    """
    draw = np.random.default_rng(0)
    labels = np.repeat(np.arange(24), 4)
    np.savez(folder / "arrays.npz", inputs=draw.normal(size=(96, 5)).astype(np.float32), labels=labels)
    lines = ["image,label"]
    for row, label in enumerate(labels.tolist()):
        path = folder / f"images/class{label:02}/{row}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(path)
        lines.append(f"images/class{label:02}/{row}.png,{label}")
    (folder / "images.csv").write_text("\n".join(lines) + "\n")
    captions(folder / "captions")
    ratings(folder / "ratings")


def trace_of(command: Command, conf: Path, path: Path, mutation: Mutation, words: list[str]) -> str | None:
    """Run the program with one yaml broken.

    Args:
        command: The command line.
        conf: A copy of the shipped folder of yamls.
        path: The yaml to break, below ``conf``; it is whole again afterwards.
        mutation: The broken content.
        words: Of the command line; see :func:`words_for`.

    Returns:
        The stack trace, or None if the run succeeded or ended in one line.
    """
    whole = path.read_text()
    path.write_text(mutation.text)
    try:
        code = command("--config-path", str(conf), *words)
    except Exception:
        return traceback.format_exc()
    finally:
        path.write_text(whole)
    return None if code in {0, 1, 2} else f"exit code {code}"


def words_for(path: Path) -> list[str]:
    """Return the options of a short run that uses a yaml, such as ``callbacks=[default,ema]`` for ``callbacks/ema``.

    Args:
        path: The yaml, below the folder of yamls.
    """
    group, name = path.parent.as_posix(), path.stem
    if group == "experiment":
        data = _DATA["movielens"] if name == "movielens" else ()
        return [f"experiment={name}", *_SHORT, "trainer.fast_dev_run=true", *data]
    if group == "datamodule":
        return [f"datamodule={name}", *_DATA.get(name, ()), *_SHORT, "trainer.fast_dev_run=true"]
    if group == "encoder":
        return [*_ARRAYS[:2], f"encoder={name}", *_SHORT]
    short = [*_ARRAYS, *_SHORT, "trainer.max_epochs=1", "++trainer.check_val_every_n_epoch=1"]
    if group in {".", "hydra", "hydra/help", "hydra/job_logging"}:
        return short
    if group == "trainer":
        processes = () if name == "default" else ("++trainer.devices=1", "++trainer.strategy=auto")
        return [*_ARRAYS, *_SHORT, f"trainer={name}", *processes]
    listed = group == "callbacks" and name != "default"
    return [*short, f"{group}=[default,{name}]" if listed else f"{group}={name}"]


def copy_of(conf: Path, folder: Path) -> Path:
    """Copy the shipped yamls, to break them one after another.

    Args:
        conf: The shipped folder.
        folder: Where the copy goes.

    Returns:
        The copy.
    """
    return Path(shutil.copytree(conf, folder / "conf", ignore=shutil.ignore_patterns("__pycache__")))

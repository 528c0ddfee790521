"""Options of a resumed run: every key has a rule, the rules are documented, and records of any form are compared."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from omegaconf import DictConfig, OmegaConf

from metric_module import UserError
from metric_module.config.schema import Config
from metric_module.tasks.resume_options import APPLIED, KEPT, ON_RESUME, REFUSED, on_resume, resume_options

Compose = Callable[..., DictConfig]
DOCS = Path(__file__).resolve().parents[3] / "docs" / "promises.md"
NOT_COMPARED = {"ckpt_path", "debug", "gallery", "output_dir", "port", "query", "task", "trusted"}


def leave(run: Path, cfg: DictConfig, record: Any = None, inside: Any = None) -> str:
    """Leave the record of a run, as ``config.yaml`` or inside the checkpoint, and return the checkpoint's path."""
    path = run / "checkpoints" / "last.ckpt"
    path.parent.mkdir(parents=True)
    (run / "config.yaml").write_text(OmegaConf.to_yaml(cfg) if record is None else record)
    torch.save({"state_dict": {}, **({} if inside is None else {"config": inside})}, path)
    return str(path)


def test_the_table_of_the_docs_is_the_table() -> None:
    rows = re.findall(r"^\| `([\w.]+)` \| (\w+) \|$", DOCS.read_text(encoding="utf-8"), re.MULTILINE)
    assert dict(rows) == ON_RESUME and list(ON_RESUME) == sorted(ON_RESUME)
    assert set(ON_RESUME.values()) == {APPLIED, REFUSED, KEPT}


def test_every_option_has_a_rule() -> None:
    assert {key.split(".")[0] for key in ON_RESUME} == set(Config.__dataclass_fields__) - NOT_COMPARED
    assert on_resume("optimizer.lr") == on_resume("callbacks.ema.decay") == APPLIED
    assert on_resume("optimizer.lr_more") == on_resume("datamodule.rooted") == on_resume("encoder.widths") == REFUSED


@pytest.mark.parametrize("resolved", [False, True])
@pytest.mark.parametrize("inside", [False, True])
def test_values_are_compared_where_references_lead(
    small: Compose, tmp_path: Path, resolved: bool, inside: bool
) -> None:
    """Records with references, as ``${margin}``, and with what they stand for; in a file, or in the checkpoint."""
    old = small("margin=0.3", "miner=distance_weighted", "miner.cutoff=0.25", folder="elsewhere")
    plain: Any = OmegaConf.to_container(old, resolve=resolved)
    path = leave(tmp_path / "run", old, yaml.safe_dump({} if inside else plain), plain if inside else None)
    assert resume_options(old.copy(), path) == []
    cfg = small("miner=distance_weighted", "callbacks.last.every_n_steps=null", "trainer.deterministic=true")
    assert sorted(resume_options(cfg, path)) == [
        "resume: callbacks.last.every_n_steps: 100 -> null",
        "resume: margin: 0.3 -> 0.4",
        "resume: miner.cutoff: 0.25 -> 0.5",
        "resume: trainer.deterministic: warn -> true",
    ]


def test_a_kept_option_is_put_back(small: Compose, tmp_path: Path) -> None:
    path = leave(tmp_path / "run", small("module.encoder_weights=old.safetensors"))
    cfg = small("module.encoder_weights=new.safetensors")
    told = "resume: module.encoder_weights stays old.safetensors; new.safetensors is for a new run"
    assert resume_options(cfg, path) == [told]
    assert cfg.module.encoder_weights == "old.safetensors"


@pytest.mark.parametrize("record", ["", "{", "[1, 2]", "margin: ${margin}", "margin: {a: &a [1], b: *a}"])
def test_a_record_that_says_nothing(small: Compose, tmp_path: Path, record: str) -> None:
    cfg = small()
    path = leave(tmp_path / "run", cfg, record or "\n", inside=[1])
    assert not [line for line in resume_options(cfg, path) if "margin" not in line]
    (tmp_path / "run" / "config.yaml").unlink()
    assert resume_options(small("margin=0.1"), path) == []


def test_a_refusal_names_the_value_to_give(small: Compose, tmp_path: Path) -> None:
    path = leave(tmp_path / "run", small("encoder.width=12"))
    message = (
        r"^encoder.width: the run was trained with 12, and resuming it cannot change that to 8; give encoder.width=12, "
        rf"or start a new run from its weights, module.encoder_weights={tmp_path}/run/encoder.safetensors$"
    )
    with pytest.raises(UserError, match=message):
        resume_options(small(), path)
    strange = {"encoder": {"_target_": "a\x1b[31m" + "x" * 99}}
    path = leave(tmp_path / "other", small("encoder.width=12"), inside=strange)
    with pytest.raises(UserError, match=r"encoder._target_: .* with a\?\[31mx+\.\.\., and.*; leave out encoder, or"):
        resume_options(small(), path)


def test_old_names_are_no_change(small: Compose, tmp_path: Path) -> None:
    old = OmegaConf.to_yaml(small()).replace("metric_module.training.schedules.", "metric_module.schedules.")
    assert "_target_: metric_module.schedules.warmup_cosine" in old
    assert resume_options(small(), leave(tmp_path / "run", small(), old)) == []

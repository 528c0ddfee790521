"""Old names of targets are replaced by new ones that exist."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from metric_module.config.arguments import locate
from metric_module.config.renamed import RENAMED, rename_targets
from metric_module.config.trust import PARTS


@pytest.mark.parametrize("old", RENAMED)
def test_a_new_name_is_a_part_of_this_project_and_of_the_same_class(old: str) -> None:
    new = RENAMED[old]
    assert PARTS.fullmatch(new) and new not in RENAMED
    assert locate("x", new).__name__ == old.rpartition(".")[2]


def test_names_are_replaced_wherever_they_stand_and_nothing_else() -> None:
    old, new = "metric_module.encoders.multi.MultiEncoder", "metric_module.encoders.MultiEncoder"
    cfg = OmegaConf.create(
        {
            "a": {"_target_": old, "deep": [{"_target_": old}, {"_target_": "torch.nn.ReLU"}, None, "???", "${b}"]},
            "b": old,
            "c": {"_target_": "${b}"},
            "d": None,
            "e": {"_target_": ["strange"], "f": "???"},
        }
    )
    OmegaConf.set_readonly(cfg, True)
    OmegaConf.set_struct(cfg, True)
    before = OmegaConf.to_container(cfg, resolve=False)
    rename_targets(cfg)
    after = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(before, dict) and isinstance(after, dict)
    before["a"]["_target_"] = before["a"]["deep"][0]["_target_"] = new
    assert after == before
    assert OmegaConf.is_readonly(cfg)

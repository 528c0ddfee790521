"""The figure of a sweep and its direction, also for a search sweeper."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from omegaconf import DictConfig, OmegaConf
from typing_extensions import override

from metric_module.config import conf_folder
from metric_module.config.schema import register
from metric_module.sweeps.ledger import read_plan
from metric_module.sweeps.objective import Objective, direct, objective_of
from tests.helpers.command_line import command_in


class Search(Sweeper):
    """A search sweeper as plugins have it: it follows the figures of its jobs in one direction, at first downwards."""

    def __init__(self, direction: str) -> None:
        self.direction = direction

    @override
    def setup(self, *, hydra_context: Any, task_function: Any, config: DictConfig) -> None:
        self.launcher: Any = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    @override
    def sweep(self, arguments: list[str]) -> None:
        words = [[*arguments, f"margin={margin}"] for margin in (0.1, 0.2)]
        found = [self.launcher.launch([word], initial_job_idx=n)[0].return_value for n, word in enumerate(words)]
        Path("asked.txt").write_text(f"{self.direction} {found}")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], Objective("val/map_at_r", False)),
        (["evaluation=verification"], Objective("val/roc_auc", False)),
        (["evaluation=verification", "monitor=val/eer"], Objective("val/eer", True)),
        (["~evaluation.retrieval", "+evaluation.a._target_=tests.helpers.my_metrics.MainSpread"], ("val/spread", True)),
        (["~evaluation.retrieval", "+evaluation.a._target_=tests.helpers.my_metrics.Spread"], ("", False)),
        (["+evaluation.a._target_=tests.helpers.my_metrics.NoSuch"], ("", False)),
    ],
)
def test_the_objective_is_that_of_the_metrics(words: list[str], expected: Objective) -> None:
    register()
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        assert objective_of(compose("config", overrides=words)) == expected


@pytest.mark.parametrize(
    ("sweeper", "typed", "lower", "expected", "said"),
    [
        (
            {"direction": "minimize"},
            [],
            False,
            {"direction": "maximize"},
            "direction=maximize, because val/x is better",
        ),
        ({"direction": "minimize"}, [], True, {"direction": "minimize"}, ""),
        ({"direction": ["minimize"]}, [], False, {"direction": ["minimize"]}, ""),
        (
            {"direction": "minimize"},
            ["hydra.sweeper.direction=minimize"],
            False,
            {"direction": "minimize"},
            "direction=minimize was typed, but val/x is better when it is higher",
        ),
        ({"optim": {"maximize": False}}, [], False, {"optim": {"maximize": True}}, "optim.maximize=True, because"),
        (
            {"ax_config": {"experiment": {"minimize": True}}},
            [],
            False,
            {"ax_config": {"experiment": {"minimize": False}}},
            "experiment.minimize=False, because",
        ),
        ({"_target_": "a.B"}, [], True, {"_target_": "a.B"}, "a.B receives the figure as it is, and val/x is better"),
        ({"_target_": "hydra.BasicSweeper"}, [], True, {"_target_": "hydra.BasicSweeper"}, ""),
    ],
)
def test_the_direction_of_a_search_follows(
    capsys: pytest.CaptureFixture[str],
    sweeper: dict[str, Any],
    typed: list[str],
    lower: bool,
    expected: dict[str, Any],
    said: str,
) -> None:
    hydra: Any = OmegaConf.create({"sweeper": sweeper, "overrides": {"hydra": typed}})
    OmegaConf.set_readonly(hydra, True)
    direct(hydra, Objective("val/x", lower))
    assert hydra.sweeper == expected
    told = capsys.readouterr().err
    assert (said in told and told.startswith("hydra.sweeper")) if said else not told


@pytest.mark.parametrize(
    ("words", "asked"),
    [([], "maximize [0.25, 0.25]"), (["evaluation=verification", "monitor=val/eer"], "minimize [0.75, 0.75]")],
)
def test_a_search_sweeper_of_a_plugin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], asked: str
) -> None:
    plugin = "hydra_plugins.search.Search"
    monkeypatch.setitem(Plugins.instance().class_name_to_class, plugin, Search)
    job = tmp_path / "job.py"
    job.write_text(
        "import json, pathlib, sys\n"
        "folder = next(w for w in sys.argv if w.startswith('hydra.run.dir=')).split(\"'\")[1]\n"
        'pathlib.Path(folder, \'metrics.json\').write_text(\'{"val": {"map_at_r": 0.25, "eer": 0.75}}\')\n'
    )
    monkeypatch.setattr("metric_module.sweeps.job.CHILD", (sys.executable, str(job)))
    (tmp_path / "conf" / "hydra" / "sweeper").mkdir(parents=True)
    (tmp_path / "conf/hydra/sweeper/search.yaml").write_text(f"_target_: {plugin}\ndirection: minimize\n")
    call = command_in(tmp_path, monkeypatch)
    typed = ("-m", "--config-dir", "conf", "hydra/sweeper=search", "hydra.sweep.dir=mine", *words)
    assert call(*typed) == 0
    assert (tmp_path / "asked.txt").read_text() == asked
    plan = read_plan(tmp_path / "mine")
    assert (plan.jobs, plan.lower) == (None, bool(words)) and plan.monitor == f"val/{'eer' if words else 'map_at_r'}"

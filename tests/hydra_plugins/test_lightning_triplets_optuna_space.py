"""The search space of the sweeper for Optuna, in Hydra's syntax."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from hydra_plugins.lightning_triplets_optuna import distribution
from metric_module.errors import UserError


def parsed(word: str) -> Any:
    return OverridesParser.create().parse_override(word)


@pytest.mark.integration
@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("a=interval(0.05,1)", "FloatDistribution(high=1.0, log=False, low=0.05, step=None)"),
        ("a=tag(log,interval(0.001,1))", "FloatDistribution(high=1.0, log=True, low=0.001, step=None)"),
        ("a=int(interval(1,8))", "IntDistribution(high=8, log=False, low=1, step=1)"),
        ("a=range(2,10,4)", "IntDistribution(high=6, log=False, low=2, step=4)"),
        ("a=range(10,2,-4)", "IntDistribution(high=10, log=False, low=6, step=4)"),
        ("a=tag(log,range(1,65))", "IntDistribution(high=64, log=True, low=1, step=1)"),
        ("a=range(0,1,0.25)", "FloatDistribution(high=0.75, log=False, low=0.0, step=0.25)"),
        ("a=x,[1,2],null", "CategoricalDistribution(choices=('x', '[1,2]', 'null'))"),
        ("+a=choice('x y',0.5)", r"CategoricalDistribution(choices=('x\\ y', '0.5'))"),
    ],
)
def test_the_search_space_has_hydras_syntax(word: str, expected: str) -> None:
    assert str(distribution(parsed(word))) == expected


@pytest.mark.integration
@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("seed=1,2", "seed=1,2: a search would choose the best by chance; give one value"),
        ("+datamodule.fold=range(4)", "+datamodule.fold=range(4): a search would choose"),
        ("a=tag(lgo,interval(1,2))", "a=tag(lgo,interval(1,2)): expected no tag but log, on numbers alone"),
        ("a=tag(log,choice(1,2))", "a=tag(log,choice(1,2)): expected no tag but log, on numbers alone"),
        ("a=interval(2,1)", "a=interval(2,1): no search space ("),
        ("a=tag(log,interval(0,1))", "a=tag(log,interval(0,1)): no search space ("),
        ("a=range(3,1)", "a=range(3,1): no search space ("),
    ],
)
def test_other_overrides_are_rejected(word: str, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        distribution(parsed(word))

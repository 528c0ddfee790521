"""All sides of the mining benchmark do the same work, and its figures mean what the table says."""

from __future__ import annotations

import csv
import math
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch import Tensor

from benchmarks import mining, mining_memory
from benchmarks.mining_cases import CASES, MARGIN, Bars, Case, Work, inputs
from benchmarks.mining_curve import Point, draw, record, works
from benchmarks.mining_measure import Measured, check_agreement, interleave
from benchmarks.mining_memory import Footprint, Settings, footprint
from benchmarks.mining_sides import SIDES, UnavailableError, build
from benchmarks.mining_table import CENSUS, EVEN, census_row, met, other_row, row, sides, tables, variants
from metric_module import TripletCriterion
from metric_module.distances import Euclidean
from metric_module.miners import All
from tests.helpers.processes import CONTEXT

QUICK = Settings(repeats=2, threads=1)
SAME_WORK = [
    Work("semihard", 32, 16),
    Work("semihard", 48, 16, per_class=12),
    Work("semihard", 64, 16, per_class=None),
    Work("all", 32, 16),
    Work("all", 32, 16, loss="soft"),
    Work("batch_hard", 32, 16),
    Work("batch_hard", 64, 16, per_class=None),
    Work("hard", 32, 16),
    Work("easy_positive", 32, 16),
]


def loss_and_gradient(side: str, work: Work) -> tuple[float, Tensor]:
    data = inputs(work)
    embeddings = data.embeddings.requires_grad_()
    loss = build(side, work)(embeddings, data.labels)
    (gradient,) = torch.autograd.grad(loss, embeddings)
    return loss.item(), gradient


@pytest.mark.parametrize("work", SAME_WORK, ids=str)
@pytest.mark.parametrize("side", ["pml", "naive"])
def test_sides_do_the_same_work(side: str, work: Work) -> None:
    loss, gradient = loss_and_gradient("ours", work)
    assert loss > 0.01
    other_loss, other_gradient = loss_and_gradient(side, work)
    assert other_loss == pytest.approx(loss, rel=1e-5)
    torch.testing.assert_close(other_gradient, gradient, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("miner", ["all", "batch_hard"])
def test_oml_does_the_same_work_where_it_is_installed(miner: str) -> None:
    work = Work(miner, 32, 16)
    if find_spec("oml") is None:
        with pytest.raises(UnavailableError, match="not installed"):
            build("oml", work)
        return
    loss, gradient = loss_and_gradient("ours", work)
    other_loss, other_gradient = loss_and_gradient("oml", work)
    assert other_loss == pytest.approx(loss, rel=1e-5)
    torch.testing.assert_close(other_gradient, gradient, rtol=1e-3, atol=1e-5)


def test_distance_weighted_draws_alike() -> None:
    work = Work("distance_weighted", 64, 16)
    torch.manual_seed(0)
    data = inputs(work)
    means = []
    for side in ("ours", "pml"):
        run = build(side, work)
        means.append(sum(run(data.embeddings, data.labels).item() for _ in range(100)) / 100)
    assert means[1] == pytest.approx(means[0], rel=0.03)


def test_the_floor_is_the_three_products(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, data = Work("semihard", 24, 8), inputs(Work("semihard", 24, 8))
    shapes: list[tuple[int, ...]] = []
    product = Tensor.__matmul__
    monkeypatch.setattr(Tensor, "__matmul__", lambda one, two: shapes.append(tuple(product(one, two).shape)))
    build("floor", whole)(*data)
    assert shapes == [(24, 24), (24, 8), (24, 8)]


@pytest.mark.parametrize(
    ("side", "work", "reason"),
    [
        ("naive", Work("all", 256), "B > 128"),
        ("naive", Work("distance_weighted", 32), "-"),
        ("oml", Work("semihard", 32), "-"),
        ("oml", Work("all", 512), "B > 256: too slow"),
        ("pml", Work("semihard", 32, loss="soft"), "-"),
        ("pml", Work("semihard_nearest", 32), "-"),
    ],
)
def test_a_side_says_why_it_cannot(side: str, work: Work, reason: str) -> None:
    with pytest.raises(UnavailableError, match=f"^{reason}$"):
        build(side, work)
    assert footprint(work, side, QUICK) == reason


@pytest.mark.parametrize("per_class", [4, 32, None])
@pytest.mark.parametrize("dimension", [32, 128, 1024])
def test_inputs_hold_every_kind_of_triplet(dimension: int, per_class: int | None) -> None:
    embeddings, labels = inputs(Work("all", 256, dimension, per_class))
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(256))
    assert (labels.diff() != 0).float().mean() > 0.5
    sizes = labels.bincount()
    assert sizes.max() <= 40 and (per_class is None or (sizes == per_class).all())
    census = TripletCriterion(Euclidean(), All(), margin=MARGIN)(embeddings, labels).census
    total = census.easy + census.semihard + census.hard
    assert census.hard / total > 0.002 and census.semihard / total > 0.1 and census.easy / total > 0.3
    assert census.mean_d_ap < census.mean_d_an


def test_a_side_that_disagrees_is_found() -> None:
    found = {"ours": Footprint(1, 1, 0.5, 1), "floor": Footprint(1, 1, math.nan, math.nan)}
    check_agreement(Work("all", 8), {**found, "pml": Footprint(1, 1, 0.50001, 1.0001)})
    with pytest.raises(RuntimeError, match=r"same loss of all sides, got 0\.5 of ours and 0\.6 of pml"):
        check_agreement(Work("all", 8), {**found, "pml": Footprint(1, 1, 0.6, 1)})
    with pytest.raises(RuntimeError, match=r"same norm of the gradient of all sides, got 1 of ours and 2 of naive"):
        check_agreement(Work("all", 8), {**found, "naive": Footprint(1, 1, 0.5, 2)})


def test_sides_take_turns_in_a_rotating_order_and_slow_ones_sit_out() -> None:
    order: list[str] = []

    def run(name: str, seconds: float) -> float:
        order.append(name)
        return seconds

    found = interleave({"a": lambda: run("a", 1), "b": lambda: run("b", 6)}, repeats=4)
    assert order == ["a", "a", "b", "a", "b", "b", "a", "a", "b", "a"]
    assert found["a"] == [1] * 4 and found["b"][:3] == [6] * 3 and math.isnan(found["b"][3])
    assert Measured(found).ratio("b", "a") == 6


def measured() -> Measured:
    seconds = {"ours": [0.003, 0.002], "floor": [0.001, 0.001], "pml": [0.09, 0.06], "oml": [0.006, 0.004]}
    ours = {EVEN: [0.002, 0.002], CENSUS: [0.0045, 0.003]}
    feet = {"ours": Footprint(50, 1, 1, 1), "pml": Footprint(500, 1, 1, 1), "floor": Footprint(5, 1, 1, 1)}
    return Measured({**seconds, **ours}, {**feet, "oml": Footprint(60, 1, 1, 1)}, {"naive": "-"})


@pytest.mark.parametrize(
    ("bars", "expected"),
    [
        (Bars(), True),
        (Bars(floor=2.5, peer=30, oml=2, share=0.1, megabytes=51, even=1.25, census=1.5), True),
        (Bars(floor=2.4), False),
        (Bars(peer=31), False),
        (Bars(share=0.09), False),
        (Bars(megabytes=50), False),
        (Bars(even=1.2), False),
        (Bars(oml=2.1), False),
        (Bars(census=1.4), False),
    ],
)
def test_every_bar_counts(bars: Bars, expected: bool) -> None:
    case = Case("work", Work("semihard", 8), bars)
    assert met(case, measured()) == ("yes" if expected else "no")


def test_each_bar_is_in_its_row_and_each_case_in_its_table() -> None:
    bars = Bars(floor=2.5, peer=30, oml=2, share=0.1, megabytes=51)
    case, counted = Case("one", Work("all", 8), bars), Case("other", Work("all", 8), Bars(census=1.5))
    found = [(case, measured()), (counted, measured())]
    assert row(*found[0])[3:] == [
        "2.50",
        "<= 2.5",
        "30.0",
        ">= 30",
        "50.0 (bar < 51)",
        "500.0",
        "0.100 (bar <= 0.1)",
        "yes",
    ]
    assert other_row(*found[0]) == ["one", "5.00", "2.00", ">= 2", "60.0", "-", "-", "-"]
    assert census_row(*found[1]) == ["other", "2.50", "3.75", "1.50", "<= 1.5", "yes"]
    assert [line[:6] for line in tables(found).splitlines() if line.startswith("| o")] == ["| one ", "| one ", "| othe"]
    assert "naive" not in tables(found[1:]) and "with/without" not in tables(found[:1])


def test_the_census_is_measured_against_our_side_alone() -> None:
    case = CASES["census_batch_hard"]
    assert sides(case) == ("ours",) and variants(case) == {CENSUS: replace(case.work, census=True)}
    assert "oml" in sides(CASES["uneven"]) and list(variants(CASES["uneven"])) == [EVEN]


def test_a_bar_whose_figure_is_missing_is_not_met() -> None:
    alone = replace(measured(), footprints={"ours": Footprint(50, 1, 1, 1)}, notes={"pml": "needs over 8 GB"})
    alone.seconds.pop("pml")
    case = Case("work", Work("semihard", 8), Bars(peer=1))
    assert met(case, alone) == "no"
    assert row(case, alone)[5:9] == ["needs over 8 GB", ">= 1", "50.0", "needs over 8 GB"]


@pytest.mark.integration
def test_a_side_beyond_the_memory_limit_is_left_out() -> None:
    work = Work("semihard", 512, 8)  # 512^3 bytes of masks
    assert footprint(work, "pml", Settings(threads=1, memory_limit=0.1)) == "needs over 0.1 GB"


@pytest.mark.integration
def test_the_command_writes_its_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = {
        "uneven": replace(CASES["uneven"], title="Uneven", work=Work("semihard", 32, 8, per_class=None)),
        "census_all": replace(CASES["census_all"], title="Counted", work=Work("all", 32, 8)),
    }
    monkeypatch.setattr(mining, "CASES", tiny)
    monkeypatch.setattr(mining_memory, "get_context", lambda method: CONTEXT)
    options = ["--repeats", "2", "--threads", "1", "--output", str(tmp_path)]
    monkeypatch.setattr("sys.argv", ["mining", *options])
    mining.main()
    text = (tmp_path / "mining.md").read_text()
    assert text in capsys.readouterr().out
    first, second = (line for line in text.splitlines() if line.startswith("| Uneven"))
    cells = [cell.strip() for cell in first.strip("|").split("|")]
    assert "x the time of K=4, bar <= 3x)" in cells[0]
    assert all(float(cells[place]) > 0 for place in (1, 2, 3, 5)) and float(cells[8]) >= 0
    assert float(second.split("|")[6]) > 0  # the naive loop
    (counted,) = (line for line in text.splitlines() if line.startswith("| Counted"))
    assert all(float(cell) > 0 for cell in counted.split("|")[2:5])


def test_the_curve_asks_for_matplotlib_before_it_measures(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(mining, "find_spec", lambda name: None)
    monkeypatch.setattr("sys.argv", ["mining", "--curve"])
    with pytest.raises(SystemExit):
        mining.main()
    assert "--curve: expected matplotlib to be installed" in capsys.readouterr().err


def test_the_curve_is_written_and_drawn(tmp_path: Path) -> None:
    def fake(work: Work) -> Measured:
        if work.batch < 256:
            return measured()
        seconds = {"ours": [0.1], "floor": [0.01]}
        feet = {"ours": Footprint(50, 1, 1, 1), "floor": Footprint(5, 1, 1, 1)}
        return Measured(seconds, feet, {"pml": "needs over 8 GB"})

    points = record(works(256), fake, tmp_path / "curve.csv")
    assert {point.side for point in points} == {"ours", "pml", "floor"} <= set(SIDES)
    rows = list(csv.DictReader((tmp_path / "curve.csv").read_text().splitlines()))
    assert tuple(rows[0]) == Point._fields and len(rows) == len(points) == 3 * (2 + 6 + 6)
    assert rows[0]["milliseconds"] == "2.5" and rows[4]["note"] == "needs over 8 GB"
    draw(points, tmp_path / "curve.png", "caption")
    assert (tmp_path / "curve.png").stat().st_size > 20_000

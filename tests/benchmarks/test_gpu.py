"""The check for a GPU succeeds on the CPU with tiny sizes, and its figures mean what the table says."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from benchmarks import gpu, gpu_runs
from benchmarks.gpu import Case, measured, table
from benchmarks.gpu_accuracy import MODES, accuracy
from benchmarks.gpu_cases import MINERS, SMALL
from benchmarks.gpu_counts import counting
from benchmarks.gpu_runs import compared, launch, readme_encoder
from metric_module.miners import Easy
from tests.helpers.forked import run_program

MINER_OPTIONS = Path(__file__).parents[2] / "conf/miner"


@pytest.mark.integration
def test_every_case_succeeds_on_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "gpu.json"
    monkeypatch.setattr(sys, "argv", ["gpu", "--small", "--output", str(path)])
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # the command would set it, and leave it set
    monkeypatch.setattr(gpu_runs, "subprocess", SimpleNamespace(run=run_program))
    code = gpu.main()
    out = capsys.readouterr().out
    found = json.loads(path.read_text())
    assert code == 0 and found["failures"] == []
    assert found["torch"] == torch.__version__ and found["device"].startswith("CPU")
    assert table(found["rows"]) in out
    parts: dict[str, dict[str, Any]] = {}
    for row in found["rows"]:
        parts.setdefault(row["part"], {})[row["case"]] = row
    check_accuracy(parts["accuracy"])
    check_cost(parts)
    check_runs(parts["runs"])


def check_accuracy(rows: dict[str, Any]) -> None:
    assert rows.keys() == {f"{name}, {mode}" for name in MINERS for mode in MODES}
    # Half of the distance of neighbouring numbers, where the gradient is rounded as the embeddings are.
    rounding = {"fp32": 1e-5, "bf16-mixed": 2.0**-8, "16-mixed": 2.0**-11}
    for name, row in rows.items():
        limit = 1e-5 if name.startswith("distance_weighted") else rounding[name.split(", ")[1]]
        assert row["loss"] > 0.01, name
        assert row["loss_error"] < 1e-5 and 0 < row["gradient_error"] < limit, name


def check_cost(parts: dict[str, Any]) -> None:
    for name in ("semihard", "distance_weighted"):
        alone = [parts["criterion"][f"{name}, B={batch}"] for batch in SMALL.batches]
        whole = parts["training step"][f"default, {name}"]
        assert all(row["ms"] > row["floor_ms"] > 0 for row in alone)
        assert 20 < alone[0]["operators"] < whole["operators"] < 5000
        assert 0 < alone[0]["syncs"] == alone[1]["syncs"] <= whole["syncs"] < 100
        assert parts["criterion"][f"semihard of PML, B={SMALL.batches[1]}"]["ms"] > 0
        step = parts["encoder step"][f"{SMALL.encoder}, {name}"]
        assert step["step_ms"] > 0 and step["mean_step_ms"] > 0 and step["mining_share"] < 1
    (retrieval,) = parts["retrieval"].values()
    assert 0.01 < retrieval["map_at_r"] < 1 and retrieval["ms"] > 0 and retrieval["apart_from_cpu"] == 0


def check_runs(rows: dict[str, Any]) -> None:
    resumed = rows.pop("stopped and resumed")
    assert resumed["equal"] is True and resumed["equal_digits"] == 17
    assert rows.keys() == {"trainer=ddp_cpu", "evaluation=all", "encoder of the README"}
    assert all(0 < row["val_map_at_r"] < 1 for row in rows.values())
    assert rows["evaluation=all"]["number_of_figures"] > rows["trainer=ddp_cpu"]["number_of_figures"] > 10


def test_every_miner_of_the_command_line_is_checked() -> None:
    assert MINERS.keys() == {path.stem for path in MINER_OPTIONS.glob("*.yaml")}


def test_a_failure_is_a_row_and_hides_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> dict[str, float | int | bool | str]:
        raise RuntimeError("expected a GPU\nwith | memory")

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    cases = [Case("first", "fails", fail), Case("second", "works", lambda: {"ms": 1.23456, "equal": True})]
    monkeypatch.setattr(gpu, "measurements", lambda settings: cases)
    monkeypatch.setattr(gpu, "runs", lambda settings: [])
    monkeypatch.setattr(sys, "argv", ["gpu", "--small", "--output", str(tmp_path / "gpu.json")])
    assert gpu.main() == 1
    captured = capsys.readouterr()
    assert "| first | fails | error with / memory |\n| second | works | ms 1.23, equal True |" in captured.out
    assert "failed: first: fails: with | memory" in captured.err and "RuntimeError: expected a GPU" in captured.err
    assert json.loads((tmp_path / "gpu.json").read_text())["failures"] == ["first: fails: with | memory"]


def test_without_a_gpu_the_small_check_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit):
        gpu.main()
    assert "expected a GPU that torch can use; --small runs everything on the CPU" in capsys.readouterr().err


def test_a_reference_that_proves_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MINERS, "all", Easy)  # with the hinge loss
    with pytest.raises(RuntimeError, match=r"expected a reference loss > 0, got 0\.0"):
        accuracy(SMALL, "all", "fp32")


def test_an_error_beyond_rounding_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.gpu_accuracy.LOSS_SCALE", float("inf"))
    with pytest.raises(RuntimeError, match=r"expected errors up to .*, got .*'gradient_error': nan"):
        accuracy(SMALL, "semihard", "16-mixed")


@pytest.mark.parametrize(
    ("call", "syncs"),
    [
        (lambda values: values + 1, 0),
        (lambda values: values[0].item(), 1),
        (lambda values: bool(values.sum() > 0), 1),
        (lambda values: values.nonzero(), 1),
        (lambda values: values.unique(), 1),
        (lambda values: values[values > 0], 1),
        (lambda values: values[torch.tensor([0, 2])], 0),
        (lambda values: values.masked_select(values > 0), 1),
        (lambda values: values.tolist(), 1),
        (lambda values: values[0].tolist(), 1),
        (lambda values: values.numpy(), 1),
        (lambda values: values.cpu(), 1),
        (lambda values: (values.tolist(), values.max().item()), 2),
    ],
)
def test_what_makes_the_host_wait_is_counted(call: Any, syncs: int) -> None:
    values = torch.arange(4.0)
    with counting("cpu") as counts:
        call(values)
    assert counts.syncs == syncs


def test_operators_of_the_backward_pass_are_counted() -> None:
    weight = torch.ones(3, requires_grad=True)
    with counting("cpu") as forward:
        loss = (weight * weight).sum()
    with counting("cpu") as backward:
        torch.autograd.backward(loss)
    assert forward.operators == 2 and backward.operators > 2


class Gradient(torch.autograd.Function):
    """Computes its gradient in its forward pass, as the criterion does."""

    @staticmethod
    def forward(ctx: Any, weight: torch.Tensor) -> torch.Tensor:
        with torch.enable_grad():
            leaf = weight.detach().requires_grad_()
            (gradient,) = torch.autograd.grad((leaf * leaf).sum(), leaf)
        ctx.save_for_backward(gradient)
        return gradient.max() + gradient.sum().item()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> torch.Tensor:
        gradient: torch.Tensor = ctx.saved_tensors[0]
        return gradient * torch.tensor(grad_outputs[0].tolist())


def test_operators_inside_a_function_of_autograd_are_counted() -> None:
    weight = torch.ones(3, requires_grad=True)
    with counting("cpu") as forward:
        loss = Gradient.apply(weight)
    with counting("cpu") as backward:
        loss.backward()
    assert forward.operators > 10 and forward.syncs == 1
    assert backward.operators > 1 and backward.syncs == 1


def test_runs_are_compared_to_the_last_digit(tmp_path: Path) -> None:
    for name, step in (("one", 0.0), ("other", 2e-4)):
        (tmp_path / name).mkdir()
        save_file({"weight": torch.tensor([0.5, 2.0 + step])}, tmp_path / name / "encoder.safetensors")
        figures = {"val": {"map_at_r": 0.5 + step / 4, "none": None}}
        (tmp_path / name / "metrics.json").write_text(json.dumps(figures))
    same = compared(tmp_path / "one", tmp_path / "one")
    assert same == {"equal": True, "weights_apart": 0.0, "figures_apart": 0.0, "equal_digits": 17}
    found = compared(tmp_path / "one", tmp_path / "other")
    assert found["weights_apart"] == pytest.approx(1e-4, rel=0.01)
    assert found["figures_apart"] == pytest.approx(1e-4, rel=0.01)
    assert found["equal"] is False and found["equal_digits"] in {3, 4}


def test_a_run_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"run\.py margin=-1: expected exit code 0, got 2: error: margin: expected"):
        launch(tmp_path, "margin=-1")


def test_the_encoder_of_the_readme_is_found() -> None:
    assert readme_encoder().startswith("# my_encoders.py\n") and "class Tiny(Encoder):" in readme_encoder()


def test_a_row_has_the_last_line_of_the_exception() -> None:
    def fail() -> dict[str, float | int | bool | str]:
        raise KeyError("semihard")

    assert measured(Case("accuracy", "semihard", fail)) == {
        "part": "accuracy",
        "case": "semihard",
        "error": "KeyError: 'semihard'",
    }

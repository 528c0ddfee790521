"""Training with ``torch.compile`` gives what training without it gives."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters

from metric_module import Encoder, TripletModule
from tests.helpers.training import loader, module, trainer

pytestmark = [
    pytest.mark.integration,
    # What dynamo cannot trace runs as it is, and it reads the gradient of every tensor.
    pytest.mark.filterwarnings("ignore:Dynamo does not know how to trace", "ignore:The .grad attribute of a Tensor"),
]


class TwoLayers(Encoder):
    """Without BatchNorm, so that it can be encoded in chunks."""

    embedding_dim = 3

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.GELU(), torch.nn.Linear(8, 3))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.normalize(self.layers(inputs), dim=1)


@pytest.fixture(autouse=True)
def nothing_compiled() -> Iterator[None]:
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def compile_part(model: TripletModule, how: str) -> Any:
    """Compile in one of the ways that users have, and return what is trained."""
    if how == "torch.compile(module)":
        return torch.compile(model, backend="eager")
    if how == "module.compile()":
        model.compile(backend="eager")
    elif how == "module.criterion.compile()":
        model.criterion.compile(backend="eager")
    elif how == "module.encoder.compile()":
        model.encoder.compile(backend="aot_eager")
    elif how == "module.encoder = torch.compile(module.encoder)":
        model.encoder = torch.compile(model.encoder, backend="aot_eager")  # type: ignore[assignment]
    return model


def train(folder: Path, how: str, **settings: Any) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    """Weights and figures of two epochs."""
    model = module(TwoLayers() if settings else None, **settings)
    fit = trainer(folder, log_every_n_steps=1)
    fit.fit(compile_part(model, how), loader(), loader())
    state = {name.replace("_orig_mod.", ""): value for name, value in model.state_dict().items()}
    return state, {name: value.item() for name, value in fit.callback_metrics.items()}


@pytest.mark.parametrize(
    ("how", "settings", "compiles"),
    [
        ("module.encoder.compile()", {}, True),
        ("module.encoder.compile()", {"encode_chunk_size": 8}, True),
        ("module.encoder = torch.compile(module.encoder)", {}, True),
        ("torch.compile(module)", {}, True),
        ("module.compile()", {}, False),  # compiles forward, which training does not call, and so does the next
        ("module.criterion.compile()", {}, False),
    ],
)
def test_training_is_the_same(tmp_path: Path, how: str, settings: dict[str, Any], compiles: bool) -> None:
    torch.manual_seed(0)
    weights, figures = train(tmp_path, "", **settings)
    assert counters["frames"]["ok"] == 0 and figures["train/loss"] > 0.01
    torch.manual_seed(0)
    other_weights, other_figures = train(tmp_path, how, **settings)
    assert (counters["frames"]["ok"] > 0) is compiles
    assert other_figures == pytest.approx(figures, rel=1e-5)
    assert other_weights.keys() == weights.keys()
    for name, value in weights.items():
        torch.testing.assert_close(other_weights[name], value, msg=name)


def test_the_default_backend_gives_the_gradients_of_the_encoder() -> None:
    compiler = shutil.which("g++") or shutil.which("clang++")
    inputs = loader().dataset[0].inputs
    plain, compiled = module().encoder, module().encoder
    compiled.compile(backend="inductor" if compiler else "aot_eager")
    gradients = []
    for encoder in (plain, compiled):
        (encoder(inputs) * torch.arange(3.0)).sum().backward()
        gradients.append({name: value.grad for name, value in encoder.named_parameters()})
    assert counters["frames"]["ok"] > 0
    for name, value in gradients[0].items():
        assert value is not None and value.norm() > 0
        torch.testing.assert_close(gradients[1][name], value, rtol=1e-4, atol=1e-4, msg=name)

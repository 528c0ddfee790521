"""Learning rates by submodule: groups of parameters, ratios under every shipped schedule, and a resume."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.optim.lr_scheduler import CyclicLR, LambdaLR, LRScheduler, OneCycleLR
from torch.utils.data import DataLoader, IterableDataset

from metric_module import UserError
from metric_module.config import conf_folder
from metric_module.config.schema import register
from metric_module.training.optimizers import build_optimizer, build_scheduler, follow_optimizer, parameter_groups
from metric_module.training.schedules import warmup_cosine
from tests.helpers.training import Triples, loader, module, trainer

CONF = conf_folder()
SCHEDULERS = sorted(path.stem for path in (CONF / "scheduler").glob("*.yaml"))
SCALE = {"encoder.body": 0.1, "encoder.body.0": 0.25, "encoder.head.linear.bias": 2.0}
SGD = partial(torch.optim.SGD, lr=0.4, momentum=0.9)


class Net(nn.Module):
    """A module with block numbers of which one is a prefix of another, and a tied weight."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(2, 2) for _ in range(11)])
        self.head = nn.Linear(2, 2)
        self.blocks[5].weight = self.blocks[1].weight


def test_the_longest_name_wins_and_names_end_at_dots() -> None:
    net = Net()
    groups = parameter_groups(net, {"blocks": 0.5, "blocks.1": 0.1, "head.bias": 2})
    by_name = {group["name"]: {id(parameter) for parameter in group["params"]} for group in groups}
    assert by_name["blocks.1"] == {id(value) for value in net.blocks[1].parameters()}, "not those of blocks.10"
    assert id(net.blocks[10].weight) in by_name["blocks"]
    assert by_name["head.bias"] == {id(net.head.bias)} and by_name["rest"] == {id(net.head.weight)}
    assert {group["name"]: group["lr_scale"] for group in groups} == {
        "blocks": 0.5,
        "blocks.1": 0.1,
        "head.bias": 2.0,
        "rest": 1.0,
    }
    assert sum(map(len, by_name.values())) == len(list(net.parameters())), "each once"


def test_without_factors_the_optimizer_is_as_it_was() -> None:
    model = module(optimizer=SGD)
    made, plain = build_optimizer(model, SGD, {}), SGD(model.parameters())
    (group,) = made.param_groups
    assert group.pop("configured") == {"lr": 0.4, "momentum": 0.9, "dampening": 0, "nesterov": False, "weight_decay": 0}
    assert made.state_dict() == plain.state_dict()
    both = [part.param_groups[0]["params"] for part in (made, plain)]
    assert all(one is other for one, other in zip(*both, strict=True))


def test_the_first_step_moves_by_the_factor() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    before = [value.detach().clone() for value in net.parameters()]
    optimizer = build_optimizer(net, partial(torch.optim.SGD, lr=0.4), {"0": 0.1, "1.bias": 3})
    net(torch.randn(4, 3)).square().sum().backward()
    optimizer.step()
    for value, old, rate in zip(net.parameters(), before, [0.04, 0.04, 0.4, 1.2], strict=True):
        assert value.grad is not None and value.grad.abs().max() > 1e-3
        torch.testing.assert_close(old - value.detach(), rate * value.grad)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_every_schedule_keeps_the_ratios(tmp_path: Path, scheduler: str, optimizer: str) -> None:
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("config", overrides=[f"scheduler={scheduler}", f"optimizer={optimizer}"])
    parts = [instantiate(cfg[name], _convert_="all") for name in ("optimizer", "scheduler")]
    rates: list[list[float]] = []
    for scale in (SCALE, {}):
        made = build_optimizer(module(), parts[0], scale)
        schedule = build_scheduler(made, parts[1], lambda: 10)
        for _ in range(10):
            rates.append([group["lr"] for group in made.param_groups])
            made.step()
            schedule.step()
    scaled, plain = rates[:10], [row[0] for row in rates[10:]]
    assert max(plain) == pytest.approx(cfg.optimizer.lr)
    for row, rate in zip(scaled, plain, strict=True):
        assert row == pytest.approx([0.1 * rate, 0.25 * rate, 2 * rate, rate])
    assert min(plain) > 0 and (len(set(plain)) > 1) == (scheduler != "constant")


def sixteen_steps(optimizer: torch.optim.Optimizer, max_lr: float | list[float] = 0.4) -> LRScheduler:
    return OneCycleLR(optimizer, max_lr, total_steps=16)


def test_groups_train_resume_and_are_logged_by_name(tmp_path: Path) -> None:
    """Four epochs at once equal two and two bit for bit, with the groups in the checkpoint."""
    settings: dict[str, Any] = {"optimizer": SGD, "scheduler": sixteen_steps, "lr_scale": SCALE}
    whole, first, rest = (module(seed=seed, **settings) for seed in (0, 0, 1))
    monitor, logger = LearningRateMonitor("step"), CSVLogger(tmp_path)
    trainer(tmp_path, max_epochs=4, callbacks=[monitor], logger=logger, log_every_n_steps=1).fit(whole, loader())
    assert set(monitor.lrs) == {f"lr-SGD/{name}" for name in (*SCALE, "rest")}
    stopped = trainer(tmp_path, max_epochs=2)
    stopped.fit(first, loader())
    stopped.save_checkpoint(tmp_path / "a.ckpt")
    saved = torch.load(tmp_path / "a.ckpt", weights_only=True)["optimizer_states"][0]["param_groups"]
    assert [(group["name"], group["lr_scale"]) for group in saved] == [*SCALE.items(), ("rest", 1.0)]
    trainer(tmp_path, max_epochs=4).fit(rest, loader(), ckpt_path=tmp_path / "a.ckpt", weights_only=True)
    for name, value in whole.state_dict().items():
        assert torch.equal(rest.state_dict()[name], value), name


@pytest.mark.parametrize(
    ("saved", "now", "message"),
    [
        ({}, {"encoder.head": 0.1}, r"made with \{\}, this one with \{encoder.head: 0.1\}; resume"),
        ({"encoder.head": 0.1}, {}, r"made with \{encoder.head: 0.1\}, this one with \{\}; resume with the same"),
        (
            {"encoder.head": 0.1},
            {"encoder.body": 0.1},
            r"made with \{encoder.head: 0.1\}, this one with \{encoder.body: 0.1\}",
        ),
        (
            {"encoder.head": 0.1},
            {"encoder.head": 3},
            r"made with \{encoder.head: 0.1\}, this one with \{encoder.head: 3\}",
        ),
    ],
)
def test_a_resume_with_other_factors_is_refused(
    tmp_path: Path, saved: dict[str, float], now: dict[str, float], message: str
) -> None:
    fit = trainer(tmp_path, max_epochs=1)
    fit.fit(module(lr_scale=saved), loader())
    fit.save_checkpoint(tmp_path / "a.ckpt")
    with pytest.raises(UserError, match=rf"module\.lr_scale: the checkpoint's optimizer was {message}"):
        trainer(tmp_path).fit(module(lr_scale=now), loader(), ckpt_path=tmp_path / "a.ckpt", weights_only=True)


def test_a_schedule_of_another_length_is_refused(tmp_path: Path) -> None:
    one_cycle = partial(OneCycleLR, max_lr=0.1)
    for name, scheduler in (("one", one_cycle), ("cosine", warmup_cosine)):
        stopped = trainer(tmp_path, max_epochs=2)
        stopped.fit(module(scheduler=scheduler), loader())
        stopped.save_checkpoint(tmp_path / f"{name}.ckpt")
    steps = stopped.global_step
    longer = trainer(tmp_path, max_epochs=4)
    message = rf"^scheduler: the checkpoint's schedule has {steps} steps, and this training has {2 * steps}; "
    with pytest.raises(UserError, match=message):
        longer.fit(module(scheduler=one_cycle), loader(), ckpt_path=tmp_path / "one.ckpt", weights_only=True)
    longer = trainer(tmp_path, max_epochs=4)
    longer.fit(module(scheduler=warmup_cosine), loader(), ckpt_path=tmp_path / "cosine.ckpt", weights_only=True)
    assert longer.global_step == 2 * steps
    trainer(tmp_path, max_epochs=2).test(
        module(scheduler=one_cycle), loader(), ckpt_path=tmp_path / "one.ckpt", verbose=False
    )


@pytest.mark.parametrize("factor", [0, 0.0, -0.1, float("nan"), float("inf"), "x", None, True])
def test_a_factor_that_is_none(factor: Any) -> None:
    message = rf"module\.lr_scale: expected a finite factor > 0 for 'encoder.head', got {factor!r}; .* freeze it"
    with pytest.raises(UserError, match=message):
        module(lr_scale={"encoder.head": factor})


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "encoder.boddy",
            r"no submodule 'encoder.boddy' with parameters; did you mean 'encoder.body'.*encoder has body, head",
        ),
        ("encoder.body.9", r"encoder.body has 0, 1$"),
        ("encoder.body.2", r"no submodule 'encoder.body.2' with parameters; did you mean 'encoder.body"),
        ("zzz", r"no submodule 'zzz' with parameters; the module has encoder$"),
        ("encoder.head.linear.bias.x", r"encoder.head.linear.bias has no submodules"),
        ("", r"no submodule '' with parameters; the module has encoder$"),
        (0, r"no submodule 0 with parameters; the module has encoder$"),
    ],
)
def test_a_part_that_there_is_not(name: Any, message: str) -> None:
    with pytest.raises(UserError, match=rf"module\.lr_scale: .*{message}"):
        module(lr_scale={name: 0.1})


def test_no_mapping() -> None:
    with pytest.raises(UserError, match=r"module\.lr_scale: expected factors by name, .*, got \[1\]"):
        module(lr_scale=[1])


def test_a_schedule_without_regard_to_the_factors_is_refused() -> None:
    made = build_optimizer(module(), SGD, SCALE)
    ignorant = partial(CyclicLR, base_lr=0.01, max_lr=0.1)
    message = (
        r"CyclicLR sets the learning rates of the groups by itself, to \[0.01, .* factors are \[0.1, 0.25, 2.0, 1.0"
    )
    with pytest.raises(UserError, match=rf"module\.lr_scale: {message}"):
        build_scheduler(made, ignorant, lambda: 12)
    made = build_optimizer(module(), SGD, SCALE)
    own = partial(CyclicLR, base_lr=[0.001, 0.0025, 0.02, 0.01], max_lr=0.1)
    assert build_scheduler(made, own, lambda: 12).get_last_lr() == pytest.approx([0.001, 0.0025, 0.02, 0.01])
    made = build_optimizer(module(), SGD, SCALE)
    build_scheduler(made, partial(LambdaLR, lr_lambda=lambda step: min(1, step / 4)), lambda: 12)  # starts at 0


def test_an_optimizer_without_groups() -> None:
    with pytest.raises(UserError, match=r"module\.lr_scale: the optimizer takes no groups .*LBFGS doesn't support"):
        build_optimizer(module(), torch.optim.LBFGS, SCALE)


def test_an_eps_that_is_zero_in_half_precision_is_refused(tmp_path: Path) -> None:
    message = r"^optimizer\.eps: 1e-08 of AdamW is 0 in float16, .* give \+optimizer\.eps=1e-4, or trainer\.precision="
    with pytest.raises(UserError, match=message):
        trainer(tmp_path, precision="16-true").fit(module(), loader())
    for settings in ({"precision": "bf16-true"}, {"precision": "32"}):
        trainer(tmp_path, max_steps=1, **settings).fit(module(), loader())
    own = module(optimizer=partial(torch.optim.AdamW, lr=1e-3, eps=1e-4))
    trainer(tmp_path, precision="16-true").fit(own, loader())
    assert all(weight.isfinite().all() for weight in own.parameters())


def resumed(before: Any, after: Any, scheduler: Any = None, steps: int = 3) -> tuple[Any, Any]:
    """Take some steps with one optimizer, then load its state and that of its schedule into another."""
    parts = []
    for factory in (before, after):
        net = nn.Linear(2, 2)
        optimizer = build_optimizer(net, factory, {})
        parts.append((net, optimizer, None if scheduler is None else scheduler(optimizer)))
    (net, old, schedule), (_, new, other) = parts
    for _ in range(steps):
        net(torch.ones(1, 2)).sum().backward()
        old.step()
        if schedule is not None:
            schedule.step()
    new.load_state_dict(old.state_dict())
    if schedule is not None:
        assert other is not None
        other.load_state_dict(schedule.state_dict())
        follow_optimizer(other)
    return new, other


def cosine(optimizer: Any) -> Any:
    return warmup_cosine(optimizer, total_steps=10, warmup_fraction=0.2)


def test_changed_options_are_honoured_by_a_restored_optimizer() -> None:
    """As if training had begun with the new learning rate; options that callbacks changed meanwhile stay."""
    before = partial(torch.optim.AdamW, lr=0.1, weight_decay=0.5, betas=(0.9, 0.99))
    after = partial(torch.optim.AdamW, lr=0.02, weight_decay=0.25, betas=(0.9, 0.99))
    for scheduler in (cosine, partial(torch.optim.lr_scheduler.StepLR, step_size=2, gamma=0.5)):
        changed, schedule = resumed(before, after, scheduler)
        same, whole = resumed(after, after, scheduler)
        for _ in range(4):
            (one,), (two,) = changed.param_groups, same.param_groups
            assert 0 < one["lr"] == pytest.approx(two["lr"]) and one["weight_decay"] == 0.25
            schedule.step(), whole.step()
    (group,) = resumed(before, after)[0].param_groups
    assert (group["lr"], group["weight_decay"]) == (0.02, 0.25)


def test_unchanged_options_keep_what_the_checkpoint_says() -> None:
    net = nn.Linear(2, 2)
    old, new = (build_optimizer(net, partial(SGD, lr=0.4), {}) for _ in range(2))
    old.param_groups[0].update(lr=0.01, weight_decay=0.7)  # by a callback
    new.load_state_dict(old.state_dict())
    assert (new.param_groups[0]["lr"], new.param_groups[0]["weight_decay"]) == (0.01, 0.7)


def test_a_state_of_an_earlier_version_has_its_own_values() -> None:
    net = nn.Linear(2, 2)
    old = torch.optim.SGD(net.parameters(), lr=0.4, weight_decay=0.1)
    new = build_optimizer(net, partial(torch.optim.SGD, lr=0.2, weight_decay=0.1), {})
    new.load_state_dict(old.state_dict())
    assert (new.param_groups[0]["lr"], new.param_groups[0]["weight_decay"]) == (0.2, 0.1)


def test_schedules_within_a_schedule_follow() -> None:
    def sequence(optimizer: Any) -> Any:
        parts = [torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0), cosine(optimizer)]
        return torch.optim.lr_scheduler.SequentialLR(optimizer, parts, milestones=[2])

    _, schedule = resumed(partial(torch.optim.SGD, lr=0.4), partial(torch.optim.SGD, lr=0.1), sequence)
    assert [part.base_lrs for part in schedule._schedulers] == [[0.1], [0.1]]


@pytest.mark.parametrize(("name", "value", "old"), [("lr", 0.2, "0.4"), ("momentum", 0.5, "0.9")])
def test_an_option_that_its_schedule_sets_is_refused(name: str, value: float, old: str) -> None:
    once = partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=0.4, total_steps=10)
    before = partial(torch.optim.SGD, lr=0.4, momentum=0.9)
    message = rf"^optimizer.{name}: the schedule of the checkpoint sets it by itself; resume with {old}$"
    with pytest.raises(UserError, match=message):
        resumed(before, partial(before, **{name: value}), once)
    same, _ = resumed(before, before, once)
    assert same.param_groups[0]["momentum"] != 0.9, "it is cycled"


def test_a_loader_without_a_length_needs_max_steps(tmp_path: Path) -> None:
    class Stream(IterableDataset[Any]):
        def __iter__(self) -> Iterator[Any]:
            yield from Triples().batches

    fit = partial(trainer(tmp_path, max_epochs=1).fit, train_dataloaders=DataLoader(Stream(), batch_size=None))
    with pytest.raises(UserError, match=r"^trainer.max_steps: the schedule needs the number of steps, .*=constant$"):
        fit(module(scheduler=warmup_cosine))
    fit(module())

"""Opening a configuration or a checkpoint never runs code that the user did not trust.

Each payload would leave a trace in the current folder; a positive control runs it and finds the trace.
"""

from __future__ import annotations

import json
import logging.config
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from omegaconf import OmegaConf

from metric_module import UserError
from metric_module.cli import vouch_for
from metric_module.config.arguments import locate
from metric_module.config.trust import check_found, check_target
from tests.helpers.command_line import MY_ENCODERS, Command, command_in

PATH = {"_target_": "pathlib.Path", "_args_": ["ran"]}

CALLS: dict[str, list[Any]] = {
    "os.system": ["touch ran"],
    "os.mkdir": ["ran"],
    "os.popen": ["touch ran; sleep 0.1"],
    "os.symlink": ["nowhere", "ran"],
    "posix.system": ["touch ran"],
    "subprocess.run": [["touch", "ran"]],
    "subprocess.call": [["touch", "ran"]],
    "subprocess.check_output": [["touch", "ran"]],
    "subprocess.getoutput": ["touch ran"],
    "builtins.exec": ["open('ran', 'w').close()"],
    "builtins.eval": ["open('ran', 'w').close()"],
    "builtins.__import__": ["evil"],
    "builtins.open": ["ran", "w"],
    "io.open": ["ran", "w"],
    "pathlib.Path.touch": [PATH],
    "pathlib.Path.mkdir": [PATH],
    "shutil.copy": ["evil.py", "ran"],
    "shutil.move": ["spare.py", "ran"],
    "importlib.import_module": ["evil"],
    "runpy.run_path": ["evil.py"],
    "runpy.run_module": ["evil"],
    "timeit.timeit": ["pass", "open('ran', 'w').close()"],
    "yaml.unsafe_load": ["!!python/object/apply:os.system ['touch ran']"],
    "torch.hub.load": [".", "evil", "source=local"],
    "torch.load": ["evil.pt", "weights_only=False"],
    "torch.save": ["nothing", "ran"],
    "numpy.save": ["ran", [1]],
    "hydra.utils.get_method": ["evil.function"],
    "metric_module.storage.atomic.write_whole": [PATH, "text"],
    "metric_module.cli.entry.os.mkdir": ["ran"],
    "metric_module.encoders.timm.Path.touch": [PATH],
    "datamodules.emoji.datamodule.Path.touch": [PATH],
    "lightning.pytorch.callbacks.model_checkpoint.os.mkdir": ["ran"],
    "torch.optim.lr_scheduler.types.FunctionType.__globals__": [],
    "evil.function": [],
    "torch.utils.collect_env.run": ["touch ran"],  # which Hydra's own list of what it refuses does not have
}

EVIL = "open('ran', 'w').close()\n\ndef function(*arguments):\n    return None\n"


class Reduce:
    """A pickle that calls a function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    for name in ("evil.py", "hubconf.py", "spare.py"):
        (tmp_path / name).write_text(EVIL + "\n\ndef evil():\n    return None\n")
    torch.save(Reduce(Path.touch, Path("ran")), tmp_path / "evil.pt")
    (tmp_path / "my_encoders.py").write_text(MY_ENCODERS)
    for module in ("evil", "hubconf"):
        monkeypatch.delitem(__import__("sys").modules, module, raising=False)
    return command_in(tmp_path, monkeypatch)


def ran(folder: Path) -> bool:
    return any(folder.glob("ran*")) or (folder / "ran").is_symlink()


def write(folder: Path, name: str, content: Any, package: str = "") -> None:
    path = folder / "conf" / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"# @package {package}\n" * bool(package) + yaml.safe_dump(content))


def call(target: str, arguments: list[Any]) -> Any:
    """Instantiate without any check."""
    plain = [locate("", item["_target_"])(*item["_args_"]) if item == PATH else item for item in arguments]
    named = [item for item in plain if isinstance(item, str) and item.startswith(("source=", "weights_only="))]
    settings: dict[str, Any] = {"source": "local"} if "source=local" in named else {}
    settings |= {"weights_only": False} if "weights_only=False" in named else {}
    return locate("", target)(*[item for item in plain if item not in named], **settings)


@pytest.mark.parametrize("target", [name for name in CALLS if "__globals__" not in name])
def test_the_control_each_call_would_leave_a_trace(
    target: str, command: Command, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    made = call(target, CALLS[target])
    if hasattr(made, "close"):
        made.close()
    assert ran(tmp_path)


@pytest.mark.parametrize("target", CALLS)
@pytest.mark.parametrize("group", ["encoder", "optimizer"])
def test_a_file_cannot_name_it(
    target: str, group: str, command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, f"{group}/evil", {"_target_": target, "_args_": CALLS[target]})
    assert command("--config-dir", "conf", f"{group}=evil", "trainer.fast_dev_run=true") == 2
    named = "pathlib.Path" if PATH in CALLS[target] else target
    where = "_target_" if named == target else "_args_.0._target_"
    assert capsys.readouterr().err == (
        f"error: {group}.{where}: '{named}' comes from a file, and is no part of this project; "
        f"if you trust it, add 'trusted=[{named.split('.')[0]}]' on the command line\n"
    )
    assert not ran(tmp_path)


PLUGINS = "lightning.pytorch.plugins"
CALL = {"_target_": "subprocess.getoutput", "cmd": "touch ran"}
PLACES: dict[str, tuple[str, Any]] = {
    "a callback": ("callbacks", {"evil": CALL}),
    "a logger": ("logger", {"evil": CALL}),
    "the task": ("task", CALL),
    "an argument, deep inside": ("miner", {"_target_": "metric_module.miners.All", "more": [{"deep": CALL}]}),
    "a node that a resolver makes": ("encoder", {"_target_": "${oc.decode:'{_target_: os.getcwd}'}"}),
    "a name that is resolved": ("encoder", {"_target_": "${margin}"}),
    "the trainer's plugins": ("trainer", {"plugins": [CALL]}),
    "Hydra's callbacks": ("hydra", {"callbacks": {"evil": CALL}}),
    "Hydra's launcher": ("hydra", {"launcher": {"_target_": "subprocess.getoutput"}}),
    "Hydra's sweeper": ("hydra", {"sweeper": {"_target_": "subprocess.getoutput"}}),
    "a factory of logging": ("hydra", {"job_logging": {"handlers": {"x": {"()": "subprocess.getoutput"}}}}),
    "a class of logging": ("hydra", {"job_logging": {"handlers": {"x": {"class": "subprocess.Popen"}}}}),
    "an object of logging": ("hydra", {"job_logging": {"handlers": {"console": {"stream": "ext://evil.function"}}}}),
    "Hydra's own logging": ("hydra", {"hydra_logging": {"handlers": {"x": {"()": "subprocess.getoutput"}}}}),
    "the environment of what it starts": ("hydra", {"job": {"env_set": {"PYTHONPATH": "."}}}),
    "a resolver below hydra": ("hydra", {"callbacks": "${oc.create:{evil: {_target_: os.getcwd}}}"}),
    "a word for itself": ("trusted", ["subprocess"]),
    "a checkpoint's way to be read": ("trainer", {"plugins": [{"_target_": f"{PLUGINS}.TorchCheckpointIO"}]}),
}
RUN = {"_target_": "torch.utils.collect_env.run", "command": "touch ran"}
NESTED = r"${oc.env:NOPE,'\${oc.${oc.env:NOPE,create}:{_target_: torch.utils.collect_env.run, command: touch ran}}'}"
FAR = "${oc.create:{evil:{_target_:torch.utils.collect_env.run,command:'touch ran'}}}"
ELSEWHERE: dict[str, dict[str, Any]] = {
    "callbacks": {"encoder": FAR, "hydra": {"callbacks": "${encoder}"}},
    "a callback": {"encoder": FAR, "hydra": {"callbacks": {"x": "${oc.select:encoder.evil}"}}},
    "a handler": {
        "encoder": {"h": {"()": RUN["_target_"], "command": "touch ran"}},
        "hydra": {"job_logging": {"handlers": {"x": "${encoder.h}"}}},
    },
    "a stream": {
        "task": {"e": "ext://evil.function"},
        "hydra": {"job_logging": {"handlers": {"x": {"class": "logging.StreamHandler", "stream": "${task.e}"}}}},
    },
    "the words that were typed": {
        "hydra": {
            "job_logging": {"zzz": {"LIGHTNING_TRIPLETS_TYPED": '["trusted=[torch.utils]"]'}},
            "job": {"env_set": "${hydra.job_logging.zzz}"},
        }
    },
    "all of hydra's logging": {"task": {"x": {}}, "hydra": {"job_logging": "${task.x}"}},
    "a task that is made": {"task": "${oc.create:{_target_:evil.function}}"},
    "a task that is a part": {"task": {"_target_": "torch.optim.AdamW"}},
    "a node that changes when it is read again": {
        "encoder": "${oc.create:${oc.decode:${task.p.${oc.env:PL_GLOBAL_SEED,n}}}}",
        "task": {"p": {"n": "{_target_: metric_module.encoders.ConvNet}", "0": str(RUN)}},
    },
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("more", [[], ["seed=1,2", "-m"], ["--cfg", "job"]], ids=["run", "sweep", "show"])
def test_no_place_of_a_file_can(
    place: str, more: list[str], command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    group, content = PLACES[place]
    write(tmp_path, "experiment/evil", {group: content}, package="_global_")
    assert command("--config-dir", "conf", "experiment=evil", "trainer.fast_dev_run=true", *more) == 2
    assert capsys.readouterr().err.startswith(f"error: {group}")
    assert not ran(tmp_path)


def at(place: str, value: Any) -> dict[str, Any]:
    """Nest a value: ``at("a.b", 1)`` is ``{"a": {"b": 1}}``."""
    for key in reversed(place.split(".")):
        value = {key: value}
    return value  # type: ignore[no-any-return]


ELSEWHERE |= {
    f"the name of a resolver, at {place}": at(place, NESTED)
    for place in ("trainer.profiler", "logger.tensorboard.name", "callbacks.best.filename")
}


@pytest.mark.parametrize("place", ELSEWHERE)
def test_nor_by_a_reference(place: str, command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, "experiment/evil", ELSEWHERE[place], package="_global_")
    assert command("--config-dir", "conf", "experiment=evil", "trainer.fast_dev_run=true") == 2
    assert capsys.readouterr().err.startswith("error: ")
    assert not ran(tmp_path)


def test_the_control_logging_calls_factories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    handler = {"()": "subprocess.getoutput", "cmd": "touch ran"}
    with pytest.raises(ValueError, match="x"):
        logging.config.dictConfig({"version": 1, "incremental": False, "handlers": {"x": handler, "y": 1}})
    assert ran(tmp_path)


def test_a_node_that_a_resolver_makes_is_seen_before_it_is_built(command: Command, tmp_path: Path) -> None:
    more = "${oc.create:{_target_: os.mkdir, path: ran}}"
    write(tmp_path, "encoder/evil", {"_target_": "metric_module.encoders.ConvNet", "more": more})
    assert command("--config-dir", "conf", "encoder=evil", "trainer.fast_dev_run=true") == 2
    assert not ran(tmp_path)
    OmegaConf.to_container(OmegaConf.create({"more": more}), resolve=True)


def test_words_of_a_run_that_is_resumed_are_those_of_a_file(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run/.hydra").mkdir(parents=True)
    (tmp_path / "run/.hydra/hydra.yaml").write_text("hydra: {runtime: {config_sources: []}}")
    words = [
        "encoder=custom",
        "encoder._target_=subprocess.getoutput",
        "+encoder.cmd=touch ran",
        "trusted=[subprocess]",
    ]
    (tmp_path / "run/.hydra/overrides.yaml").write_text(yaml.safe_dump(words))
    assert command("resume=run") == 2
    assert "trusted: a file cannot vouch for itself" in capsys.readouterr().err
    (tmp_path / "run/.hydra/overrides.yaml").write_text(yaml.safe_dump(words[:3]))
    assert command("resume=run") == 2
    assert "'subprocess.getoutput' comes from a file" in capsys.readouterr().err
    evil = f'trainer.profiler="{NESTED}"'
    (tmp_path / "run/.hydra/overrides.yaml").write_text(yaml.safe_dump([evil]))
    assert command("resume=run") == 2
    assert "trainer.profiler: expected a plain value, got '${oc.create:" in capsys.readouterr().err
    assert not ran(tmp_path)


def test_words_of_a_sweep_that_a_file_asks_for(command: Command, tmp_path: Path, capfd: Any) -> None:
    params = {
        "hydra": {"sweeper": {"params": {"encoder._target_": "subprocess.getoutput", "+encoder.cmd": "touch ran"}}}
    }
    write(tmp_path, "experiment/evil", params, package="_global_")
    words = ["--config-dir", "conf", "experiment=evil", "encoder=custom", "trainer.fast_dev_run=true", "-m"]
    assert command(*words) != 0
    assert "'subprocess.getoutput' comes from a file" in capfd.readouterr().err
    assert not ran(tmp_path)


def test_what_was_typed_or_trusted_is_called(command: Command, tmp_path: Path) -> None:
    quick = ("trainer.fast_dev_run=true", "trainer.accelerator=cpu", "test=false")
    assert command("encoder=custom", "encoder._target_=my_encoders.Tiny", *quick) == 0
    write(tmp_path, "encoder/mine", {"_target_": "my_encoders.Tiny"})
    for trusted, code in (("my_encoders", 0), ("my_encoders.Tiny", 0), ("my_enc", 2), ("other", 2)):
        assert command("--config-dir", "conf", "encoder=mine", f"trusted=[{trusted}]", *quick) == code


def test_an_allowed_name_of_an_object_from_elsewhere_is_rejected() -> None:
    with pytest.raises(UserError, match=r"x: 'metric_module.encoders.Path' comes from a file"):
        check_found("x", "metric_module.encoders.Path", Path)
    check_found("task._target_", "metric_module.tasks.train", locate("task._target_", "metric_module.tasks.train"))
    with pytest.raises(UserError, match=r"encoder._target_: 'metric_module.tasks.train' comes from a file"):
        check_target("encoder._target_", "metric_module.tasks.train")


def test_from_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metric_module.config.trust._trusted", [])
    with pytest.raises(UserError, match="comes from a file"):
        check_target("encoder._target_", "mine.Tiny")
    vouch_for("mine")
    check_target("encoder._target_", "mine.Tiny")


HIDDEN: dict[str, Callable[[Any], dict[str, Any]]] = {
    "in place of everything": lambda evil: evil,
    "in the weights": lambda evil: {"state_dict": {"encoder.weight": evil}},
    "beside the weights": lambda evil: {"state_dict": {}, "more": evil},
    "in the hyper-parameters": lambda evil: {"state_dict": {}, "hyper_parameters": {"x": evil}},
    "in a callback's state": lambda evil: {"state_dict": {}, "callbacks": {"LastCheckpoint": {"random": [evil]}}},
    "in the data module's state": lambda evil: {"state_dict": {}, "EmojiDataModule": evil},
    "in the optimizer": lambda evil: {"state_dict": {}, "optimizer_states": [evil]},
    "as a configuration": lambda evil: {"state_dict": {}, "config": evil},
}


@pytest.mark.parametrize("place", HIDDEN)
def test_a_checkpoint_cannot_call(
    place: str, command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "here/checkpoints"
    folder.mkdir(parents=True)
    torch.save(HIDDEN[place](Reduce(Path.touch, Path("ran"))), folder / "last.ckpt")
    for words in (["task=evaluate", f"ckpt_path={folder}/last.ckpt"], [f"ckpt_path={folder}/last.ckpt"]):
        assert command(*words, "trainer.accelerator=cpu", "hydra.run.dir=there") == 2
        assert "is not a checkpoint of plain tensors (UnpicklingError)" in capsys.readouterr().err
    with pytest.warns(UserWarning, match="is damaged"):
        assert command("task=evaluate", "ckpt_path=last", "hydra.run.dir=here") == 2
    assert not ran(tmp_path)
    torch.load(folder / "last.ckpt", weights_only=False)
    assert ran(tmp_path), "the control: it would have run"


@pytest.mark.parametrize("target", ["os.mkdir", "metric_module.cli.entry.os.mkdir"])
def test_without_the_checks_it_would_have_run(
    target: str, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checks, and nothing else, make :func:`test_a_file_cannot_name_it` pass."""
    monkeypatch.setattr("metric_module.cli.entry.check_composed", lambda cfg, words: None)
    monkeypatch.setattr("metric_module.config.plain.check_names", lambda values: None)
    monkeypatch.setattr("metric_module.config.arguments.check_target", lambda path, name: None)
    monkeypatch.setattr("metric_module.config.arguments.check_found", lambda path, name, found: None)
    write(tmp_path, "encoder/evil", {"_target_": target, "path": "ran"})
    monkeypatch.setattr("metric_module.config.instances.check_target", lambda path, name: None)
    words = ("encoder=evil", "trainer.fast_dev_run=true", "trainer.accelerator=cpu")
    assert command("--config-dir", "conf", *words) == 2, "it is no encoder, but that is found out too late"
    assert ran(tmp_path)


@pytest.mark.parametrize(
    "words",
    [
        ["hydra.searchpath=[pkg://run.code]"],
        ["--config-path=/tmp"],
        ["-cp=/tmp"],
        ["--config-dir=conf"],
        ["+hydra.x=1"],
    ],
)
def test_options_of_a_run_that_is_resumed(
    words: list[str], command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run/code").mkdir(parents=True)
    (tmp_path / "run/.hydra").mkdir()
    (tmp_path / "run/code/__init__.py").write_text(EVIL)
    (tmp_path / "run/.hydra/overrides.yaml").write_text(yaml.safe_dump([*words, "trainer.fast_dev_run=true"]))
    assert command("resume=run") == 2
    assert f"got '{words[0]}'" in capsys.readouterr().err
    assert not ran(tmp_path)


def test_a_search_path_that_a_file_asks_for(command: Command, tmp_path: Path, capfd: Any) -> None:
    asks = {"mode": "MULTIRUN", "sweeper": {"params": {"hydra.searchpath": "[pkg://evil]"}}}
    write(tmp_path, "experiment/evil", {"hydra": asks}, package="_global_")
    words = ("--config-dir", "conf", "experiment=evil", "trainer.fast_dev_run=true", "trainer.accelerator=cpu")
    assert command(*words, "test=false") == 0, "a file does not start a sweep"
    assert not (tmp_path / "sweeps").exists()
    assert command(*words, "-m") == 2
    assert "hydra.searchpath: a file cannot change it" in capfd.readouterr().err
    assert not ran(tmp_path)


def test_plain_values_of_a_checkpoint(command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """References that become another node when they are resolved again, and the one that a text search missed."""
    again = "${oc.create:${oc.decode:${distance.p.${oc.env:PL_GLOBAL_SEED,n}}}}"
    parts = {"n": "{_target_: metric_module.encoders.ConvNet}", "0": str(RUN)}
    for config, told in (
        ({"encoder": again, "distance": {"p": parts}}, "encoder: expected a group with a _target_"),
        ({"encoder": {"x": again}, "distance": {"p": parts}}, "encoder.x: expected a plain value in the checkpoint"),
        ({"datamodule": {"root": NESTED}}, "datamodule.root: expected a plain value in the checkpoint"),
    ):
        torch.save({"state_dict": {}, "config": config}, tmp_path / "evil.ckpt")
        assert command("task=evaluate", "ckpt_path=evil.ckpt", "trainer.accelerator=cpu") == 2
        assert capsys.readouterr().err.startswith(f"error: {told}")
    assert not ran(tmp_path)


@pytest.mark.parametrize("flag", ["--experimental-rerun", "--exp"])
def test_a_pickle_is_not_rerun(flag: str, command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([f"{flag}=evil.pt"], [flag, "evil.pt"]):
        assert command(*words) == 2
        assert "--experimental-rerun: a pickle can run any code; give resume=<run>" in capsys.readouterr().err
    assert not ran(tmp_path)


def test_what_a_file_adds_to_a_sweep(command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asks = {"overrides": {"task": ["--experimental-rerun=evil.pt"]}}
    write(tmp_path, "experiment/evil", {"hydra": asks}, package="_global_")
    assert command("--config-dir", "conf", "experiment=evil", "margin=0.3,0.4", "-m") == 2
    assert "hydra.overrides: a file cannot set them" in capsys.readouterr().err
    plan = {"monitor": "val/map_at_r", "words": ["margin=0.3,0.4"], "hydra_words": [], "options": [], "jobs": None}
    (tmp_path / "sweep").mkdir()
    for word in ("hydra.sweep.subdir=../../x", "hydra.sweep.subdir=${hydra:sweep.dir}/../x"):
        (tmp_path / "sweep/sweep.json").write_text(json.dumps(plan | {"hydra_words": [word]}))
        assert command("resume_sweep=sweep") == 2
        assert "hydra.sweep.subdir: expected a folder in the sweep" in capsys.readouterr().err
    assert not ran(tmp_path) and not (tmp_path.parent / "x").exists()


def test_a_file_of_many_values(command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    rows += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 8)]
    write(tmp_path, "experiment/evil", {}, package="_global_")
    (tmp_path / "conf/experiment/evil.yaml").write_text("\n".join(["# @package _global_", *rows]))
    assert command("--config-dir", "conf", "experiment=evil") == 2
    assert "evil.yaml: expected at most 100,000 values" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"encoder": ["x"]}, r"encoder: expected a group with a _target_ in the configuration of the checkpoint, got"),
        ({"encoder": None}, r"encoder: expected a group with a _target_ in the configuration of the checkpoint, got"),
        ({"margin": "wide"}, r"margin: expected a number in the configuration of the checkpoint, got 'wide'"),
        ({"encoder": {0: 1}}, r"KeyValidationError|Key 0|encoder"),
        ({"encoder": {"_target_": "metric_module.encoders.MLP", "x": {"_target_": [1]}}}, r"encoder.x._target_: \[1\]"),
        ({"encoder": {"_target_": "metric_module.encoders.MLP", "x": {1, 2}}}, r"the configuration in the checkpoint"),
    ],
)
def test_a_malformed_configuration_of_a_checkpoint(
    config: Any, told: str, command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"state_dict": {}, "config": config}, tmp_path / "odd.ckpt")
    assert command("task=evaluate", "ckpt_path=odd.ckpt", "trainer.accelerator=cpu") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(told, line)


def test_a_task_that_is_none(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    for name, told in (("report", "has no 'report'"), ("build", "expected a class or a function")):
        assert command(f"task._target_=metric_module.tasks.{name}") == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: task._target_: ") and told in line

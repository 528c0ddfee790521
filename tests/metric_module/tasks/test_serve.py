"""The command ``task=serve``."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from metric_module.tasks.serve import listen
from tests.helpers.command_line import Command, command_in
from tests.helpers.serving import encoded, picture, picture_folder

ROOT = Path(__file__).resolve().parents[3]
QUICK = ["encoder=conv_net", "encoder.widths=[8,8,8]", "trainer.accelerator=cpu", "trainer.max_steps=1", "report=false"]
QUICK += ["trainer.limit_val_batches=1", "test=false", "logger=csv", "hydra.run.dir=run"]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    return command_in(tmp_path, monkeypatch)


@pytest.fixture
def run(command: Command, tmp_path: Path) -> str:
    assert command(*QUICK) == 0
    return str(tmp_path / "run")


def last_line(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err.splitlines()[-1]


def test_a_checkpoint_is_needed(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("task=serve") == 2
    assert last_line(capsys).startswith("error: ckpt_path: expected the folder of a run")


def test_a_missing_package_is_named(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "python_multipart", None)
    assert command("task=serve", f"ckpt_path={tmp_path}") == 2
    line = last_line(capsys)
    assert line == "error: serve: needs python_multipart; pip install 'lightning-triplets[serve]'"


@pytest.mark.integration
def test_a_port_in_use(command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert command("task=serve", f"ckpt_path={tmp_path}", f"port={port}") == 2
    line = last_line(capsys)
    assert line.startswith(f"error: port: cannot listen on 127.0.0.1:{port} (") and "already in use" in line


@pytest.mark.integration
@pytest.mark.parametrize("port", [65536, -1])
def test_a_port_out_of_range(command: Command, tmp_path: Path, port: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("task=serve", f"ckpt_path={tmp_path}", f"port={port}") == 2
    assert last_line(capsys) == f"error: port: expected an integer from 0 (any free port) to 65535, got {port}"


def test_an_answer_does_not_wait_for_acknowledgements() -> None:
    with listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        connection, _ = listener.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1


@pytest.mark.integration
def test_a_gallery_that_cannot_be_read_frees_the_port(
    command: Command, run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    for _ in range(2):
        assert command("task=serve", f"ckpt_path={run}", f"gallery={tmp_path / 'empty'}", "port=0") == 2
        assert (
            last_line(capsys) == f"error: gallery: {tmp_path}/empty: expected images, such as .jpg and .png, got none"
        )


@pytest.fixture
def served(run: str, tmp_path: Path) -> Iterator[tuple[Any, str]]:
    """A server in a process of its own, and its address."""
    words = ["task=serve", f"ckpt_path={run}", f"gallery={picture_folder(tmp_path / 'gallery')}", "port=0"]
    command = [sys.executable, str(ROOT / "run.py"), *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(2)]
        assert lines[1].endswith("/ takes requests; Ctrl-C stops\n"), (lines, process.poll())
        yield process, lines[1].split("/ takes")[0]
    finally:
        process.kill()
        process.communicate()


@pytest.mark.integration
def test_the_command_serves_until_control_c(served: tuple[Any, str], tmp_path: Path) -> None:
    import httpx

    process, address = served
    assert address.startswith("http://127.0.0.1:")
    kind = {"content-type": "image/png"}
    with httpx.Client(base_url=address, timeout=60, trust_env=False) as client:
        near = client.post("/search?k=1", content=encoded(picture(4)), headers=kind).json()["neighbours"]
        assert near[0][0]["name"].endswith("ben/2.png") and near[0][0]["label"] == "ben"
        assert client.get("/health", headers={"host": "attacker.example"}).status_code == 400
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "stopped by SIGINT\n")
    assert out == "" and not (tmp_path / "runs").exists()

"""The supervisor with real processes: what dies comes back, and nothing is left behind, whoever is killed."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import psutil
import pytest
from voxpria_launcher.parts import Part
from voxpria_launcher.supervisor import rotate

T = TypeVar("T")

STOP_SECONDS = 60.0

DRIVER = """
import asyncio, signal, sys
from pathlib import Path
from voxpria_launcher import guard
from voxpria_launcher.main import _handle_signals, _say
from voxpria_launcher.parts import Part
from voxpria_launcher.supervisor import Supervisor

folder = Path(sys.argv[1])
FAMILY = '''
import os, signal, sys, time
if os.fork() == 0:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
while True:
    time.sleep(1)
'''
def part(name, code):
    return Part(name, [sys.executable, "-c", code], {}, folder / f"{name}.log", stop_seconds=float(sys.argv[2]))

async def supervise():
    stop = asyncio.Event()
    stubborn = FAMILY.replace("if os.fork() == 0:", "if 1:")
    supervisor = Supervisor([[part("family", FAMILY)], [part("stubborn", stubborn)]], _say)
    _handle_signals(stop, supervisor)
    await supervisor.run(stop)
    return 0

sys.exit(guard.run(lambda: asyncio.run(supervise())))
"""
"""Two parts: one with a child that ignores SIGTERM, and one that ignores it itself. Four processes below the guard."""


def until(what: str, probe: Callable[[], T], seconds: float = 10) -> T:
    deadline = time.monotonic() + seconds
    while not (value := probe()):
        if time.monotonic() > deadline:
            pytest.fail(f"not within {seconds} s: {what}")
        time.sleep(0.02)
    return value


def is_alive(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


class Tree:
    """The guard, and what is below it."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self.guard = process
        self.all = until("four processes run", lambda: self._below(4))
        self.supervisor = psutil.Process(process.pid).children()[0]

    def _below(self, count: int) -> list[psutil.Process]:
        found = psutil.Process(self.guard.pid).children(recursive=True)
        return found if len(found) == count else []

    def part(self, word: str) -> psutil.Process:
        """The main process of the part whose code holds `word`."""
        return until(f"{word} runs", lambda: next(iter(self._parts(word)), None))

    def _parts(self, word: str) -> Iterator[psutil.Process]:
        for process in self.supervisor.children():
            with contextlib.suppress(psutil.NoSuchProcess, IndexError):
                if word in process.cmdline()[-1] and process.cmdline()[0] == sys.executable:
                    yield process

    def left(self) -> list[psutil.Process]:
        return [process for process in self.all if is_alive(process)]


@pytest.fixture
def tree(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Tree]:
    patience = STOP_SECONDS if request.node.name.startswith("test_a_second") else 1.0
    command = [sys.executable, "-c", DRIVER, str(tmp_path), str(patience)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    tree = Tree(process)
    yield tree
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        process.wait(10)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_every_process(tree: Tree, number: signal.Signals) -> None:
    tree.guard.send_signal(number)
    assert tree.guard.wait(10) == 0
    assert not tree.left()


def test_a_killed_part_comes_back_and_its_children_do_not_stay(tree: Tree) -> None:
    part = tree.part("os.fork() == 0")
    orphan = part.children()[0]
    part.kill()
    until("the orphan is gone", lambda: not is_alive(orphan))
    until("the part is back with a child", lambda: _has_a_child(tree.part("os.fork() == 0")))
    assert tree.part("os.fork() == 0").pid != part.pid


def _has_a_child(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return len(process.children()) == 1
    return False


def test_a_killed_supervisor_leaves_nothing(tree: Tree) -> None:
    tree.supervisor.kill()
    assert tree.guard.wait(30) == 128 + signal.SIGKILL
    assert not tree.left()


def test_a_killed_guard_leaves_nothing(tree: Tree) -> None:
    tree.guard.kill()
    tree.guard.wait(10)
    until("every process is gone", lambda: not tree.left())


def test_a_second_signal_ends_at_once_what_does_not_stop(tree: Tree) -> None:
    started = time.monotonic()

    def ended() -> bool:
        """Press Ctrl-C once more: two that come together are one to the kernel (signal(7))."""
        tree.guard.send_signal(signal.SIGINT)
        return tree.guard.poll() is not None

    until("the guard has ended", ended, STOP_SECONDS / 2)
    assert tree.guard.returncode == 0
    assert time.monotonic() - started < STOP_SECONDS
    assert not tree.left()


def test_a_long_log_is_cut_and_its_end_kept(tmp_path: Path) -> None:
    part = Part("x", [], {}, tmp_path / "x.log")
    part.log.write_bytes(b"old" * 1000 + b"new" * 10)
    rotate(part, limit_bytes=4000)
    assert part.log.stat().st_size == 3030
    rotate(part, limit_bytes=30)
    assert part.log.stat().st_size == 0
    assert (tmp_path / "x.log.1").read_bytes() == b"new" * 10


def test_a_closed_terminal_ends_every_process(tmp_path: Path) -> None:
    terminal, side = os.openpty()
    command = [sys.executable, "-c", DRIVER, str(tmp_path), "1"]
    process = subprocess.Popen(command, stdin=side, stdout=side, stderr=side, start_new_session=True)
    tree = Tree(process)
    os.close(side)
    os.close(terminal)
    tree.guard.send_signal(signal.SIGHUP)
    assert tree.guard.wait(10) == 0
    assert not tree.left()

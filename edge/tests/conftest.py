"""The fixtures of the edge's tests: one running edge for all of them, and routes of each test's own."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from running_edge import RunningEdge

from tests.ports import free_port

_NUMBERS = itertools.count(15555550000)


@pytest.fixture(scope="session")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEdge]:
    """A running edge with Kamailio, rtpengine and the agent, and without routes."""
    with RunningEdge.started(tmp_path_factory.mktemp("edge")) as running:
        yield running


@pytest.fixture
def number() -> str:
    """A number that no other test calls."""
    return f"+{next(_NUMBERS)}"


@pytest.fixture
def agent_port() -> int:
    """A port for the trunk's server of this test."""
    return free_port()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the programs of this test log to."""
    return tmp_path

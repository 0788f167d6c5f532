"""Each part of the edge killed with -9 in the middle of 50 calls: what can survive does, and each record ends once."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from routes_of_tests import AGENT, CARRIER, number_on, trunk_to
from running_edge import Call, RunningEdge, until
from sipp_tool import Sipp, sipp

CALLS, TALK_MS = 50, 12_000

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def own_edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEdge]:
    with RunningEdge.started(tmp_path_factory.mktemp("stability")) as running:
        yield running


def calls_to(edge: RunningEdge, number: str) -> list[Call]:
    return [call for call in edge.calls() if call.invited.to == number]


def count(edge: RunningEdge, number: str, kind: str) -> int:
    return sum(kind in call.kinds for call in calls_to(edge, number))


def place_all(edge: RunningEdge, number: str, agent_port: int, folder: Path, part: str) -> Sipp:
    """Place the calls, kill the part while all of them are up, start it again, and wait until the carrier is done."""
    to, rate = (edge.address, edge.sip_port), ("-r", "25", "-rp", "1000")
    with (
        sipp("agent_answers", folder, address=AGENT, port=agent_port, calls=CALLS, extra=("-l", "100")),
        sipp(
            "carrier_calls_and_hangs_up",
            folder,
            address=CARRIER,
            to=to,
            number=number,
            calls=CALLS,
            extra=("-d", str(TALK_MS), "-l", "100", *rate),
        ) as carrier,
    ):
        until("every call is answered", lambda: count(edge, number, "answered") == CALLS, 60)
        edge.kill_part(part)
        edge.start_part(part)
        until("the edge is up again", edge.is_up, 60)
        carrier.process.wait(120)
    return carrier


@pytest.mark.parametrize(
    ("part", "ends"),
    [
        ("agent", {"hangup"}),
        ("kamailio", {"hangup", "media_timeout"}),  # a BYE may come to nobody as long as it is repeated
        ("rtpengine", {"hangup", "media_timeout"}),
    ],
)
def test_a_part_dies_in_fifty_calls(
    own_edge: RunningEdge, number: str, agent_port: int, folder: Path, part: str, ends: set[str]
) -> None:
    edge = own_edge
    trunk = trunk_to(agent_port)
    edge.route([trunk], [number_on(trunk, number)])
    carrier = place_all(edge, number, agent_port, folder, part)
    if part == "agent":
        assert carrier.process.returncode == 0, carrier.messages[-3000:]
    until("every call has ended", lambda: count(edge, number, "ended") == CALLS, 90)
    calls = calls_to(edge, number)
    assert len(calls) == CALLS
    for call in calls:
        once = Counter(kind for kind in call.kinds if kind in ("invited", "ringing", "answered", "ended"))
        assert once == {"invited": 1, "ringing": 1, "answered": 1, "ended": 1}, call.kinds
    assert {call.ended.cause for call in calls if call.ended} <= ends
    until(
        "the edge knows of no open call", lambda: edge.control_plane.status and not edge.control_plane.status.open_calls
    )
    call_once(edge, number, folder / "after", agent_port)
    until("the new call has ended", lambda: count(edge, number, "ended") == CALLS + 1)


def test_a_killed_agent_leaves_no_process_behind(own_edge: RunningEdge) -> None:
    until("its worker runs", lambda: psutil.Process(own_edge.pid("agent")).children(recursive=True))
    children = psutil.Process(own_edge.pid("agent")).children(recursive=True)
    own_edge.kill_part("agent")
    until("all of them have ended", lambda: not any(child.is_running() for child in children))
    own_edge.start_part("agent")
    until("the edge is up again", own_edge.is_up, 60)


def _open_calls(edge: RunningEdge) -> int | None:
    status = edge.control_plane.status
    return status.open_calls if status else None


def call_once(edge: RunningEdge, number: str, folder: Path, agent_port: int) -> None:
    """Place one more call, which must be answered."""
    folder.mkdir()
    to = (edge.address, edge.sip_port)
    with (
        sipp("agent_answers", folder, address=AGENT, port=agent_port) as agent,
        sipp("carrier_calls_and_hangs_up", folder, address=CARRIER, to=to, number=number) as carrier,
    ):
        carrier.wait()
        agent.wait()

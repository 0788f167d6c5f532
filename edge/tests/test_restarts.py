"""A part of the edge dies while a call is being set up: it goes on where it can, and its record tells the truth."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from challenger import PASSWORD, USER, challenger
from routes_of_tests import AGENT, CARRIER, number_on, trunk_to
from running_edge import RunningEdge, until
from sipp_tool import sipp

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def own_edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEdge]:
    with RunningEdge.started(tmp_path_factory.mktemp("restarts")) as running:
        yield running


def restart(edge: RunningEdge, part: str) -> None:
    """Kill a part with -9 and start it again."""
    edge.kill_part(part)
    edge.control_plane.status = None  # what was said before counts no more
    edge.start_part(part)
    until("the edge is up again", edge.is_up, 90)


@pytest.mark.parametrize(
    ("credentials", "detail"),
    [
        ({"username": USER, "password": PASSWORD}, None),
        ({}, "the trunk has none: set its credentials"),
        ({"username": USER, "password": "wrong"}, "refused the trunk's username and password"),
    ],
    ids=["right", "none", "wrong"],
)
def test_an_agent_that_died_since_it_dialled_answers_the_challenge_all_the_same(
    own_edge: RunningEdge,
    number: str,
    agent_port: int,
    folder: Path,
    credentials: dict[str, str],
    detail: str | None,
) -> None:
    edge = own_edge
    trunk = trunk_to(agent_port, **credentials)
    edge.route([trunk], [number_on(trunk, number)])
    scenario = "carrier_is_refused" if detail else "carrier_calls_and_hangs_up"
    with challenger(AGENT, agent_port, ["MD5"]) as server:
        server.may_answer.clear()
        to = (edge.address, edge.sip_port)
        with sipp(scenario, folder, address=CARRIER, to=to, number=number) as carrier:
            until("the server is dialled", lambda: server.of("INVITE"))
            restart(edge, "agent")
            server.may_answer.set()
            carrier.wait()
    call = edge.ended_call(carrier.sip_call_id)
    assert call.ended is not None
    if detail is None:
        assert (call.ended.cause, call.ended.sip_code) == ("hangup", 200)
    else:
        assert call.ended.cause == "rejected"
        assert detail in str(call.ended.detail)

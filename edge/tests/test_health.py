"""The trunks' servers are asked how they are: what they answer is told, and calls go where somebody is."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from registrar_tool import PASSWORD, USER, registrar_server
from routes_of_tests import AGENT, CARRIER, number_on, trunk_to
from running_edge import Call, RunningEdge, until
from sipp_tool import sipp
from tls_front import tls_front
from udp_front import is_options, udp_front
from voxpria_routing.edge_api import TrunkReport

from tests.ports import free_port


@pytest.fixture(scope="module")
def asking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEdge]:
    """An edge that asks every second."""
    with RunningEdge.started(tmp_path_factory.mktemp("asking"), {"VOXPRIA_HEALTH_SECONDS": "1"}) as running:
        yield running


def until_found(edge: RunningEdge, status: str, trunk_id: str) -> TrunkReport:
    def found() -> TrunkReport | None:
        report = edge.control_plane.reports.get(trunk_id)
        return report if report and report.status == status else None

    return until(f"{trunk_id} is {status}", found, 60)


def call(edge: RunningEdge, folder: Path, number: str, port: int) -> Call:
    """Place a call that a server on `port` is to take."""
    folder.mkdir()
    to = (edge.address, edge.sip_port)
    with (
        sipp("agent_answers", folder, address=AGENT, port=port) as answering,
        sipp("carrier_calls_and_hangs_up", folder, address=CARRIER, to=to, number=number) as carrier,
    ):
        carrier.wait()
        answering.wait()
    return edge.ended_call(carrier.sip_call_id)


def test_a_dead_server_is_passed_over_and_taken_again_before_a_caller_has_to_find_out(
    asking: RunningEdge, number: str, agent_port: int, folder: Path
) -> None:
    second_port = free_port()
    first = trunk_to(agent_port, id="trunk_h", failover_trunk_ids=("trunk_s",))
    # a server that answers no OPTIONS, for it is not asked: an AI provider's
    second = trunk_to(second_port, id="trunk_s", name="The second", provider="elevenlabs", transport="udp")
    asking.route([first, second], [number_on(first, number)])
    with sipp("server_answers_options", folder, address=AGENT, port=agent_port, calls=1000):
        report = until_found(asking, "reachable", "trunk_h")
    assert report.detail == "answered 200 OK"
    assert report.latency_ms is not None
    assert report.latency_ms > 0
    assert (report.server, report.port, report.transport) == (AGENT, agent_port, "udp")

    report = until_found(asking, "unreachable", "trunk_h")
    assert "no answer over UDP" in report.detail
    passed = call(asking, folder / "second", number, second_port)
    assert "attempted" not in passed.kinds
    line, last = [line for line in passed.invited.explanation.tried if f":{agent_port}/udp" in line]
    assert line.startswith("passed over trunk The trunk")
    assert "no answer over UDP" in line
    assert last.startswith("then to trunk The trunk")
    assert last.endswith("as a last resort")

    (folder / "again").mkdir()
    with sipp("server_answers_options", folder / "again", address=AGENT, port=agent_port, calls=1000):
        until_found(asking, "reachable", "trunk_h")
    ended = call(asking, folder / "first", number, agent_port)
    assert "attempted" not in ended.kinds
    assert f"sent to trunk The trunk ({AGENT}:{agent_port}/udp)" in ended.invited.explanation.tried


def test_a_server_that_is_down_is_the_last_resort_of_calls_that_have_nowhere_else_to_go(
    asking: RunningEdge, number: str, agent_port: int, folder: Path
) -> None:
    trunk = trunk_to(agent_port, id="trunk_last")
    asking.route([trunk], [number_on(trunk, number)])
    with sipp("server_answers_options", folder, address=AGENT, port=agent_port, calls=1000):
        until_found(asking, "reachable", "trunk_last")
    until_found(asking, "unreachable", "trunk_last")

    (folder / "in_vain").mkdir()
    to = (asking.address, asking.sip_port)
    with sipp("carrier_is_refused", folder / "in_vain", address=CARRIER, to=to, number=number) as refused:
        refused.wait()
    assert refused.final_code() == 503
    in_vain = asking.ended_call(refused.sip_call_id)
    assert in_vain.invited.refusal is None
    assert "as a last resort" in in_vain.invited.explanation.summary
    assert in_vain.ended is not None
    assert in_vain.ended.cause == "unreachable"

    inside = free_port()
    (folder / "back").mkdir()
    contact = f"{AGENT}:{agent_port}"
    with (
        udp_front(AGENT, agent_port, (AGENT, inside), is_options),
        sipp("agent_answers", folder / "back", address=AGENT, port=inside, contact=contact, calls=2) as answering,
    ):
        for summary in ("as a last resort: ", f"to {AGENT}."):  # a call that went well says more than silence
            with sipp("carrier_calls_and_hangs_up", folder, address=CARRIER, to=to, number=number) as carrier:
                carrier.wait()
            call = asking.ended_call(carrier.sip_call_id)
            assert summary in call.invited.explanation.summary
            assert call.ended is not None
            assert call.ended.cause == "hangup"
        answering.wait()


@pytest.mark.parametrize("algorithm", ["MD5", "SHA-256"])
@pytest.mark.parametrize(("password", "status"), [(PASSWORD, "reachable"), ("wrong", "auth_failed")])
def test_credentials_are_shown_to_a_server_that_wants_them(
    asking: RunningEdge, number: str, agent_port: int, algorithm: str, password: str, status: str
) -> None:
    id_ = f"trunk_{agent_port}"
    with registrar_server(AGENT, agent_port, algorithm=algorithm):
        trunk = trunk_to(agent_port, id=id_, username=USER, password=password, transport="tcp")
        asking.route([trunk], [number_on(trunk, number)])
        report = until_found(asking, status, id_)
    expected = "answered 200 OK" if status == "reachable" else "answered 401 Unauthorized to these credentials"
    assert report.detail == expected


def test_a_tls_server_is_asked_over_tls_and_must_prove_its_name(
    asking: RunningEdge, number: str, agent_port: int, folder: Path
) -> None:
    inside = free_port()
    context = asking.authority.server_context(folder, "sip.one.test")
    hop = f"{AGENT}:{agent_port}"
    trunks = [
        trunk_to(agent_port, id=f"trunk_{name}", transport="tls", server=name, next_hop=hop)
        for name in ("sip.one.test", "sip.two.test")
    ]
    with (
        sipp("server_answers_options", folder, address=AGENT, port=inside, transport="t1", calls=1000),
        tls_front(context, AGENT, agent_port, (AGENT, inside)),
    ):
        asking.route(trunks, [number_on(trunk, f"{number}{i}") for i, trunk in enumerate(trunks)])
        assert until_found(asking, "reachable", "trunk_sip.one.test").detail == "answered 200 OK"
        assert "not valid for 'sip.two.test'" in until_found(asking, "unreachable", "trunk_sip.two.test").detail


def test_trunks_without_numbers_in_service_are_left_alone(asking: RunningEdge, number: str, agent_port: int) -> None:
    idle, other = trunk_to(free_port(), id="trunk_idle"), trunk_to(agent_port, id="trunk_busy")
    numbers = [number_on(idle, number, disabled_reason="it is switched off"), number_on(other, f"{number}1")]
    asking.route([idle, other], numbers)
    until_found(asking, "unreachable", "trunk_busy")
    assert "trunk_idle" not in asking.control_plane.reports

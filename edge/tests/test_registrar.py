"""The edge registers with the servers of trunks that ask for it, and takes the calls that come of that."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from registrar_tool import PASSWORD, USER, registrar_server
from routes_of_tests import AGENT, CARRIER, number_on, trunk_to
from running_edge import RunningEdge, until
from sipp_tool import sipp
from voxpria_routing.edge_api import Registration
from voxpria_routing.snapshot import Trunk

from tests.ports import free_port


@pytest.fixture(scope="module")
def registering(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEdge]:
    with RunningEdge.started(tmp_path_factory.mktemp("registering")) as running:
        yield running


def registered_trunk(port: int, **values: object) -> Trunk:
    given = {"id": f"trunk_{port}", "username": USER, "password": PASSWORD, "is_registered": True}
    return trunk_to(port, **{**given, **values})


def until_told(edge: RunningEdge, trunk: Trunk, status: str) -> Registration:
    def told() -> Registration | None:
        found = edge.control_plane.registrations.get(trunk.id)
        return found if found and found.status == status else None

    return until(f"{trunk.id} is {status}", told, 60)


@pytest.mark.parametrize("algorithm", ["MD5", "SHA-256"])
@pytest.mark.parametrize("transport", ["udp", "tcp", "tls"])
def test_it_registers_refreshes_and_takes_its_contact_back(
    registering: RunningEdge, agent_port: int, algorithm: str, transport: str
) -> None:
    trunk = registered_trunk(agent_port, transport=transport)
    authority = registering.authority if transport == "tls" else None
    with registrar_server(AGENT, agent_port, algorithm=algorithm, most=6, authority=authority) as server:
        registering.route([trunk], [])
        first = until_told(registering, trunk, "registered")
        assert first.sip_code == 200
        [contact] = server.contacts()
        port = registering.tls_port if transport == "tls" else registering.sip_port
        assert contact["Address"].startswith(f"sip:{trunk.id}@{registering.address}:{port}")
        assert first.expires_at is not None
        assert (first.expires_at - first.checked_at).total_seconds() <= 6

        def is_refreshed() -> bool:
            now = registering.control_plane.registrations[trunk.id]
            return now.checked_at > first.checked_at and datetime.now(UTC) > first.expires_at

        until("it outlives its first term", is_refreshed)
        assert len(server.contacts()) == 1
        registering.route([registered_trunk(agent_port, transport=transport, is_registered=False)], [])
        until("its contact is gone", lambda: not server.contacts())
    until("nothing is said of it any more", lambda: trunk.id not in registering.control_plane.registrations)


@pytest.mark.parametrize("transport", ["udp", "tls"])
def test_a_server_that_wants_longer_gets_longer(registering: RunningEdge, agent_port: int, transport: str) -> None:
    """423 (RFC 3261 section 10.2.8), with the credentials shown again."""
    trunk = registered_trunk(agent_port, transport=transport)
    authority = registering.authority if transport == "tls" else None
    with registrar_server(AGENT, agent_port, algorithm="SHA-256", least=900, most=3600, authority=authority) as server:
        registering.route([trunk], [])
        found = until_told(registering, trunk, "registered")
        assert found.expires_at is not None
        assert (found.expires_at - found.checked_at).total_seconds() == 900
        assert len(server.contacts()) == 1


def test_refused_credentials_and_absent_servers_say_how_to_mend_it(registering: RunningEdge, agent_port: int) -> None:
    refused = registered_trunk(agent_port, password="wrong")
    absent = registered_trunk(free_port())
    with registrar_server(AGENT, agent_port) as server:
        registering.route([refused, absent], [])
        found = until_told(registering, refused, "failed")
        assert found.sip_code == 401
        assert "answered 401 Unauthorized to these credentials" in str(found.detail)
        assert "credentials.password" in str(found.mend)
        assert not server.contacts()
    found = until_told(registering, absent, "failed")
    assert found.sip_code is None
    assert "no answer" in str(found.detail)


def test_a_server_that_comes_late_is_registered_with_then(registering: RunningEdge, agent_port: int) -> None:
    trunk = registered_trunk(agent_port, transport="tcp")
    registering.route([trunk], [])
    until_told(registering, trunk, "failed")
    with registrar_server(AGENT, agent_port) as server:
        until_told(registering, trunk, "registered")
        assert len(server.contacts()) == 1


@pytest.mark.parametrize("part", ["agent", "kamailio"])
def test_one_contact_stays_when_a_part_is_killed(registering: RunningEdge, agent_port: int, part: str) -> None:
    trunk = registered_trunk(agent_port)
    with registrar_server(AGENT, agent_port, most=6) as server:
        registering.route([trunk], [])
        before = until_told(registering, trunk, "registered")
        registering.kill_part(part)
        registering.start_part(part)
        until("the edge is up again", registering.is_up, 60)

        def is_anew() -> bool:
            found = registering.control_plane.registrations[trunk.id]
            return found.status == "registered" and found.checked_at > before.checked_at

        until("it is registered anew", is_anew)
        assert len(server.contacts()) == 1


@pytest.mark.parametrize("allowed", [True, False])
def test_a_call_through_the_registration_is_admitted_like_any_other(
    registering: RunningEdge, number: str, agent_port: int, folder: Path, *, allowed: bool
) -> None:
    agent = free_port()
    trunk = registered_trunk(agent_port, allowed_addresses=(AGENT,) if allowed else ())
    target = trunk_to(agent, id="trunk_agent", allowed_addresses=())
    with registrar_server(AGENT, agent_port) as server:
        registering.route([trunk, target], [number_on(trunk, number, agent_trunk_id=target.id)])
        until_told(registering, trunk, "registered")
        until("it is bound", server.contacts)
        to = (AGENT, agent_port)
        if not allowed:
            with sipp("carrier_is_refused", folder, address=CARRIER, to=to, number=number):
                told = until("it is told of", lambda: [c for c in registering.calls() if c.invited.to == number])
            assert told[0].invited.refusal in {"credentials_needed", "source_not_allowed"}
            assert f"{AGENT} may not call {number}" in told[0].invited.explanation.summary
            return
        with (
            sipp("agent_answers", folder, address=AGENT, port=agent) as answering,
            sipp("carrier_calls_and_hangs_up", folder, address=CARRIER, to=to, number=number) as carrier,
        ):
            carrier.wait()
            answering.wait()
    ended = registering.ended_call(carrier.sip_call_id)
    assert ended.invited.trunk_id == trunk.id
    assert ended.invited.to == number
    assert any("from To" in line for line in ended.invited.explanation.tried)


def test_a_server_whose_certificate_is_another_names_gets_no_registration(
    registering: RunningEdge, agent_port: int
) -> None:
    trunk = registered_trunk(agent_port, transport="tls", server="localhost")
    with registrar_server("127.0.0.1", agent_port, authority=registering.authority) as server:
        registering.route([trunk], [])
        found = until_told(registering, trunk, "failed")
        assert "certificate" in str(found.detail)
        assert not server.contacts()


def test_each_of_two_edges_registers_and_when_one_dies_calls_come_by_the_other(
    registering: RunningEdge, number: str, agent_port: int, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The server holds a contact of each (RFC 3261 section 10.2.1), tries all, and forgets the dead one in its time."""
    agent = free_port()
    trunk = registered_trunk(agent_port, allowed_addresses=(AGENT,))
    target = trunk_to(agent, id="trunk_agent", allowed_addresses=())
    routes = [trunk, target], [number_on(trunk, number, agent_trunk_id=target.id)]
    to = (AGENT, agent_port)
    with registrar_server(*to, most=20) as server:
        with RunningEdge.started(tmp_path_factory.mktemp("dying")) as dying:
            for each in (registering, dying):
                each.route(*routes)
                until_told(each, trunk, "registered")
            ports = {registering.sip_port, dying.sip_port}
            until("both are bound", lambda: {_port(contact) for contact in server.contacts()} == ports)
        with (
            sipp("agent_answers", folder, address=AGENT, port=agent) as answering,
            sipp("carrier_calls_and_hangs_up", folder, address=CARRIER, to=to, number=number) as carrier,
        ):
            carrier.wait()
            answering.wait()
        assert registering.ended_call(carrier.sip_call_id).invited.trunk_id == trunk.id
        until("the dead edge's contact has lapsed", lambda: len(server.contacts()) == 1, 90)
        assert registering.control_plane.registrations[trunk.id].status == "registered"


def _port(contact: dict[str, Any]) -> int:
    return int(contact["Address"].split(":")[2].partition(";")[0])

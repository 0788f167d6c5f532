"""Live calls go to no address inside, whatever a name says and whenever it says it."""

import ipaddress
from collections.abc import Iterator
from pathlib import Path

import pytest
from dns_tool import ADDRESS, ZONE, DnsServer, dns_server
from hypothesis import given
from hypothesis import strategies as st
from routes_of_tests import AGENT, CARRIER, number_on, trunk_to
from running_edge import RunningEdge, until
from sipp_tool import sipp
from voxpria_edge.trunks.resolve import is_private
from voxpria_routing.snapshot import Trunk


@pytest.fixture(scope="module")
def names() -> Iterator[DnsServer]:
    with dns_server() as server:
        yield server


@pytest.fixture(scope="module")
def guarded(names: DnsServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEdge]:
    """An edge whose operator has not allowed private addresses, and that asks every second."""
    settings = {"VOXPRIA_ALLOW_PRIVATE_TRUNKS": "false", "VOXPRIA_HEALTH_SECONDS": "1"}
    with RunningEdge.started(tmp_path_factory.mktemp("guarded"), settings, name_server=ADDRESS) as running:
        yield running


@pytest.mark.parametrize("transport", ["udp", "tcp"])
@pytest.mark.parametrize("server", [AGENT, f"inside.{ZONE}"])
def test_a_live_trunk_inside_gets_no_call_and_is_not_asked(
    guarded: RunningEdge, names: DnsServer, number: str, agent_port: int, folder: Path, server: str, transport: str
) -> None:
    names.publish(f"inside A {AGENT}\n")
    id_ = f"trunk_{agent_port}"
    trunk = trunk_to(agent_port, id=id_, server=server, mode="live", transport=transport, username="u", password="p")
    mode = "u1" if transport == "udp" else "t1"
    with sipp("agent_answers", folder, address=AGENT, port=agent_port, transport=mode) as inside:
        _refused(guarded, folder, number, trunk)
        report = until("it is told of", lambda: guarded.control_plane.reports.get(id_), 60)
        assert inside.messages == ""
    assert report.status == "unreachable"
    assert "private, local or reserved" in report.detail


def _refused(edge: RunningEdge, folder: Path, number: str, trunk: Trunk) -> None:
    edge.route([trunk], [number_on(trunk, number)])
    to = (edge.address, edge.sip_port)
    with sipp("carrier_is_refused", folder, address=CARRIER, to=to, number=number) as carrier:
        carrier.wait()
    assert carrier.final_code() == 503
    ended = edge.ended_call(carrier.sip_call_id).ended
    assert ended is not None
    assert ended.cause == "unreachable"
    assert "private, local or reserved address" in str(ended.detail)


def test_a_test_trunk_keeps_to_the_machine(guarded: RunningEdge, number: str, agent_port: int, folder: Path) -> None:
    trunk = trunk_to(agent_port, id=f"trunk_{agent_port}", provider="elevenlabs")
    guarded.route([trunk], [number_on(trunk, number)])
    to = (guarded.address, guarded.sip_port)
    with (
        sipp("agent_answers", folder, address=AGENT, port=agent_port) as agent,
        sipp("carrier_calls_and_hangs_up", folder, address=CARRIER, to=to, number=number) as carrier,
    ):
        carrier.wait()
        agent.wait()


@pytest.mark.unit
@given(st.ip_addresses())
def test_whatever_is_not_global_is_private(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    if not address.is_global or address.is_multicast:
        assert is_private(str(address))


@pytest.mark.unit
@pytest.mark.parametrize(
    ("address", "private"),
    [
        *(("127.0.0.1", True), ("10.1.2.3", True), ("169.254.169.254", True), ("168.63.129.16", True)),
        *(("100.64.0.1", True), ("::1", True), ("::ffff:10.0.0.1", True), ("fe80::1%eth0", True), ("fd00::1", True)),
        *(("64:ff9b::a00:1", True), ("2002:a00:1::", True), ("8.8.8.8", False), ("2606:4700::1111", False)),
        *(("172.32.0.1", False), ("192.0.1.1", False), ("2a00:1450::1", False)),
    ],
)
def test_addresses_by_name(address: str, private: bool) -> None:
    assert is_private(address) == private

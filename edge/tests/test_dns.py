"""Trunks' servers found by name: SRV and NAPTR records of a real name server, several targets, none, no answer."""

import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import dns.asyncresolver
import pytest
from dns_tool import ADDRESS, ZONE, DnsServer, dns_server
from routes_of_tests import AGENT, CARRIER, number_on, trunk_to
from running_edge import Call, RunningEdge
from sipp_tool import Sipp, body, header, sipp
from voxpria_edge.trunks.resolve import addresses
from voxpria_routing.locate import ResolutionError
from voxpria_routing.snapshot import Trunk

from tests.ports import free_port

A, B = f"a A {AGENT}\n", f"b A {AGENT}\n"


@pytest.fixture(scope="module")
def names() -> Iterator[DnsServer]:
    with dns_server() as server:
        yield server


@pytest.fixture(scope="module")
def edge(names: DnsServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEdge]:
    """An edge that asks the tests' name server."""
    with RunningEdge.started(tmp_path_factory.mktemp("names"), name_server=ADDRESS) as running:
        yield running


def named(name: str = "sip", transport: str = "udp", **values: object) -> Trunk:
    """Return a trunk whose server has a name and no port of its own: it is sought by its SRV records."""
    port = 5061 if transport == "tls" else 5060
    return trunk_to(port, id=f"trunk_{name}", server=f"{name}.{ZONE}", transport=transport, **values)


def place(edge: RunningEdge, folder: Path, number: str, trunk: Trunk, scenario: str) -> tuple[Call, Sipp]:
    edge.route([trunk], [number_on(trunk, number)])
    folder.mkdir(exist_ok=True)
    to = (edge.address, edge.sip_port)
    with sipp(scenario, folder, address=CARRIER, to=to, number=number) as carrier:
        carrier.wait()
    return edge.ended_call(carrier.sip_call_id), carrier


def called(edge: RunningEdge, folder: Path, number: str, trunk: Trunk) -> Call:
    return place(edge, folder, number, trunk, "carrier_calls_and_hangs_up")[0]


def why(edge: RunningEdge, folder: Path, number: str, trunk: Trunk) -> str:
    """Return why a call came to nothing."""
    call, carrier = place(edge, folder, number, trunk, "carrier_is_refused")
    assert carrier.final_code() == 503
    assert call.ended is not None
    assert call.ended.cause == "unreachable"
    return str(call.ended.detail)


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_the_target_of_the_best_priority_gets_the_calls(
    edge: RunningEdge, names: DnsServer, number: str, folder: Path, transport: str
) -> None:
    best, other, name = free_port(), free_port(), f"best-{transport}"
    service = f"_sip._{transport}.{name}"
    names.publish(f"{service} SRV 10 1 {best} a\n{service} SRV 20 99 {other} b\n{A}{B}")
    with ExitStack() as stack:
        mode = "u1" if transport == "udp" else "t1"
        (folder / "other").mkdir()
        good = stack.enter_context(sipp("agent_answers", folder, address=AGENT, port=best, transport=mode, calls=2))
        idle = stack.enter_context(
            sipp("agent_answers", folder / "other", address=AGENT, port=other, transport=mode, calls=2)
        )
        for each in ("one", "two"):
            assert "attempted" not in called(edge, folder / each, number, named(name, transport)).kinds
        good.wait()
        assert idle.messages == ""


@pytest.mark.parametrize("first", ["silence", "refused", "503", "no address"])
def test_the_next_target_takes_the_call_where_the_first_does_not(
    edge: RunningEdge, names: DnsServer, number: str, folder: Path, first: str
) -> None:
    dead, alive, name = free_port(), free_port(), first.replace(" ", "-")
    transport = "tcp" if first == "refused" else "udp"
    service = f"_sip._{transport}.{name}"
    names.publish(
        f"{service} SRV 10 1 {dead} {'nowhere' if first == 'no address' else 'a'}\n{service} SRV 20 1 {alive} b\n{A}{B}"
    )
    (folder / "alive").mkdir()
    mode = "t1" if transport == "tcp" else "u1"
    with ExitStack() as stack:
        if first == "503":
            stack.enter_context(sipp("agent_refuses", folder, address=AGENT, port=dead))
        good = stack.enter_context(sipp("agent_answers", folder / "alive", address=AGENT, port=alive, transport=mode))
        call = called(edge, folder / "call", number, named(name, transport))
        good.wait()
    assert call.ended is not None
    assert call.ended.cause == "hangup"
    assert "attempted" not in call.kinds  # it is one server, at several places
    [invite] = [m for m in good.received if m.startswith("INVITE")]
    assert header(invite, "X-VoxPria-Call-Id") == call.id
    assert f"c=IN IP4 {edge.media_address}\n" in body(invite)
    assert header(invite, "Record-Route")


def test_naptr_records_lead_to_the_service(
    edge: RunningEdge, names: DnsServer, number: str, folder: Path, agent_port: int
) -> None:
    names.publish(
        'with-naptr NAPTR 10 10 "s" "SIP+D2T" "" _sip._tcp.else\n'
        'with-naptr NAPTR 20 10 "s" "SIP+D2U" "" _sip._udp.else\n'
        f"_sip._udp.else SRV 10 1 {agent_port} a\n{A}"
    )
    with sipp("agent_answers", folder, address=AGENT, port=agent_port) as good:
        called(edge, folder / "call", number, named("with-naptr"))
        good.wait()


async def test_the_agent_looks_where_kamailio_does(names: DnsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    resolver = dns.asyncresolver.Resolver(configure=False)
    resolver.nameservers = [ADDRESS]
    monkeypatch.setattr(dns.asyncresolver, "default_resolver", resolver)
    names.publish(
        "_sip._tcp.two SRV 20 1 5081 localhost.\n_sip._tcp.two SRV 10 1 5080 localhost.\n"
        'naptr NAPTR 10 10 "s" "SIP+D2T" "" _sip._tcp.two\nnaptr NAPTR 20 10 "s" "SIP+D2U" "" _sip._udp.else\n'
        "_sip._udp.else SRV 1 1 5090 localhost.\n"
    )
    assert [port for _, port in await addresses(named("two", "tcp"), is_guarded=False)] == [5080, 5081]
    assert [port for _, port in await addresses(named("naptr"), is_guarded=False)] == [5090]
    with pytest.raises(ResolutionError, match="no address"):  # another transport's service is not the trunk's
        await addresses(named("naptr", "tcp"), is_guarded=False)
    with pytest.raises(ResolutionError, match="private, local or reserved"):
        await addresses(named("naptr"), is_guarded=True)


def test_a_name_that_is_not_there_says_so(edge: RunningEdge, names: DnsServer, number: str, folder: Path) -> None:
    names.publish(A)
    assert why(edge, folder / "call", number, named("missing")) == f"DNS: the name missing.{ZONE} has no address."


def test_targets_without_an_address_say_so(edge: RunningEdge, names: DnsServer, number: str, folder: Path) -> None:
    names.publish("_sip._udp.hollow SRV 10 1 5060 nowhere\n")
    detail = why(edge, folder / "call", number, named("hollow"))
    assert detail == f"DNS: none of the servers that SRV records of hollow.{ZONE} name has an address."


def test_a_name_server_that_says_nothing_ends_the_call_and_holds_up_no_other(
    edge: RunningEdge, names: DnsServer, number: str, folder: Path, agent_port: int
) -> None:
    names.process.send_signal(signal.SIGSTOP)
    try:
        assert why(edge, folder / "lost", number, named("unanswered")).startswith("DNS: ")
        with sipp("agent_answers", folder, address=AGENT, port=agent_port) as good:
            called(edge, folder / "other", number, trunk_to(agent_port))
            good.wait()
    finally:
        names.process.send_signal(signal.SIGCONT)

"""What becomes of a call whose Kamailio, or agent, or both were killed with -9: it goes on, and ends at both sides."""

import asyncio
import contextlib
import json
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from lasting_front import lasting_front
from routes_of_tests import AGENT, CARRIER, number_on, trunk_to
from running_edge import Call, RunningEdge, until
from sipp_tool import Sipp, header, sipp
from test_announcements import SHORT, sound_of
from test_announcements import routes as announced
from test_calls_out import CALLEE, PROVIDER, trunks
from test_fuzz import rpc
from test_placed_calls import order, routes
from test_tls_certificates import NAME
from test_topology import assert_hidden
from voxpria_edge.media.rtpengine import Rtpengine
from voxpria_edge.proxy.kamailio import RpcError
from voxpria_routing.edge_api import HangUp
from voxpria_routing.events import Answered

from tests.ports import free_port

CONTROL = "127.0.0.4"
MAX_SECONDS = 12

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def own_edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEdge]:
    with RunningEdge.started(tmp_path_factory.mktemp("after-death")) as running:
        yield running


def is_at(edge: RunningEdge, number: str, kind: str) -> Call | None:
    return next((call for call in edge.calls() if call.invited.to == number and kind in call.kinds), None)


def up(edge: RunningEdge, number: str, called: Sipp) -> Call:
    """The call, once it is answered, and that is acknowledged at the called side: before, it is being set up."""
    until("its answer is acknowledged", lambda: acknowledged(called))
    return until("it is answered", lambda: is_at(edge, number, "answered"))


@contextlib.contextmanager
def talking(
    edge: RunningEdge,
    folder: Path,
    number: str,
    port: int,
    agents: str = "agent_answers",
    carriers: str = "carrier_is_hung_up_on",
    *,
    extra: Sequence[str] = (),
    seconds: int = 600,
    **credentials: str,
) -> Iterator[tuple[Call, Sipp, Sipp]]:
    """Have a carrier call a trunk's server; give the call, once it is up, the carrier's side and the server's.

    On the way out both are followed to their ends.
    """
    trunk, to = trunk_to(port, **credentials), (edge.address, edge.sip_port)
    edge.route([trunk], [number_on(trunk, number, max_duration_seconds=seconds)])
    with (
        sipp(agents, folder, address=AGENT, port=port) as agent,
        sipp(carriers, folder, address=CARRIER, to=to, number=number, extra=extra) as carrier,
    ):
        yield up(edge, number, agent), carrier, agent
        carrier.wait()
        agent.wait()


@contextlib.contextmanager
def placed(
    edge: RunningEdge,
    folder: Path,
    number: str,
    port: int,
    callees: str = "agent_answers",
    agents: str = "agent_answers",
    *,
    extra: tuple[Sequence[str], Sequence[str]] = ((), ()),
    password: str | None = None,
) -> Iterator[tuple[str, Sipp, Sipp]]:
    """Have the API place a call; give its id, once both sides are connected, and the callee's and the agent's side.

    On the way out both are followed to their ends.
    """
    callee_port = free_port()
    held = routes(edge, number, callee_port, port, password)
    with (
        sipp(callees, folder, address=AGENT, port=callee_port, extra=extra[0]) as callee,
        sipp(agents, folder, address=AGENT, port=port, extra=extra[1]) as agent,
    ):
        call_id = order(edge, held).call_id
        until("both are connected", lambda: is_connected(edge, call_id))
        # a BYE right behind an ACK may overtake it in a proxy
        until("both answers are acknowledged", lambda: acknowledged(callee) and acknowledged(agent))
        yield call_id, callee, agent
        callee.wait()
        agent.wait()


def acknowledged(called: Sipp) -> int:
    """How many answers of a side are acknowledged."""
    return sum(message.startswith("ACK ") for message in called.received)


def die(edge: RunningEdge, parts: tuple[str, ...]) -> None:
    """Kill these parts with -9, all before the first is there again."""
    for part in parts:
        edge.kill_part(part)
    for part in parts:
        edge.start_part(part)


def hears(edge: RunningEdge) -> bool:
    """Whether Kamailio is there."""
    try:
        return bool(rpc(edge, "core.uptime"))
    except RpcError:
        return False


def hang_up(edge: RunningEdge, call_id: str) -> None:
    edge.control_plane.order(HangUp(id=f"hang_up {call_id}", call_id=call_id))


def has_media(edge: RunningEdge, call_id: str) -> bool:
    """Whether rtpengine still holds a session of the call."""

    async def ask() -> bool:
        client = Rtpengine(CONTROL, edge.sip_port)
        await client.open()
        try:
            return await client.session(call_id) is not None
        finally:
            client.close()

    return asyncio.run(ask())


def assert_ended_once(edge: RunningEdge, call_id: str, cause: str, by: str) -> Call:
    """The call's one record, which says this of its end; nothing of it is left anywhere."""
    call = until("its end is told", lambda: next((c for c in edge.calls() if c.id == call_id and c.ended), None))
    assert call.ended is not None
    assert (call.ended.cause, call.ended.by, call.ended.sip_code) == (cause, by, 200), call.ended
    once = Counter(kind for kind in call.kinds if kind in ("invited", "ringing", "answered", "ended"))
    assert once == {"invited": 1, "ringing": 1, "answered": 1, "ended": 1}
    assert len(edge.calls(call.invited.sip_call_id)) == 1
    until("its media session is gone", lambda: not has_media(edge, call_id))
    until("no call is open", lambda: edge.control_plane.status and edge.control_plane.status.open_calls == 0)
    return call


def byes(side: Sipp) -> list[str]:
    """The CSeq of each BYE that a side has got, each as often as it came."""
    said = [message for message in side.received if message.startswith("BYE ")]
    assert all(header(message, name).count(";tag=") == 1 for message in said for name in ("From", "To"))
    return [header(message, "CSeq") for message in said]


@pytest.mark.parametrize("parts", [("kamailio",), ("agent",), ("kamailio", "agent")], ids="+".join)
@pytest.mark.parametrize("how", ["api", "max_duration"])
def test_both_sides_are_hung_up_on(
    own_edge: RunningEdge, number: str, agent_port: int, folder: Path, parts: tuple[str, ...], how: str
) -> None:
    edge, seconds = own_edge, MAX_SECONDS if how == "max_duration" else 600
    with talking(edge, folder, number, agent_port, seconds=seconds) as (call, carrier, agent):
        die(edge, parts)
        if how == "api":
            hang_up(edge, call.id)
    cause, by = ("hangup", "api") if how == "api" else ("max_duration", "edge")
    call = assert_ended_once(edge, call.id, cause, by)
    assert_hidden(carrier, agent)
    assert len(set(byes(carrier))) == len(set(byes(agent))) == 1
    if how == "max_duration":
        answered_at = next(event.at for event in call.events if event.__struct_config__.tag == "answered")
        assert call.ended is not None
        assert call.ended.at - answered_at >= timedelta(seconds=MAX_SECONDS - 2)


def test_fifty_calls_end_at_their_time_all_alike(
    own_edge: RunningEdge, number: str, agent_port: int, folder: Path
) -> None:
    edge, trunk, to, many = own_edge, trunk_to(agent_port), (own_edge.address, own_edge.sip_port), ("-l", "100")
    edge.route([trunk], [number_on(trunk, number, max_duration_seconds=20)])
    rate = (*many, "-r", "25", "-rp", "1000")
    with (
        sipp("agent_answers", folder, address=AGENT, port=agent_port, calls=50, extra=many) as agent,
        sipp("carrier_is_hung_up_on", folder, address=CARRIER, to=to, number=number, calls=50, extra=rate) as carrier,
    ):
        of_number = lambda: [call for call in edge.calls() if call.invited.to == number]  # noqa: E731
        until("all are answered", lambda: sum("answered" in call.kinds for call in of_number()) == 50)
        until("all answers are acknowledged", lambda: acknowledged(agent) >= 50)
        die(edge, ("kamailio", "agent"))
        carrier.wait()
        agent.wait()
    until("all have ended", lambda: all(call.ended for call in of_number()))
    causes = Counter((call.ended.cause, call.ended.by) for call in of_number() if call.ended)
    assert causes == {("max_duration", "edge"): 50}
    assert len(byes(carrier)) >= 50
    assert len(byes(agent)) >= 50
    until("no call is open", lambda: edge.control_plane.status and edge.control_plane.status.open_calls == 0)


@pytest.mark.parametrize("transport", ["tcp", "tls"])
def test_a_server_is_hung_up_on_over_a_connection_of_its_own(
    own_edge: RunningEdge, number: str, agent_port: int, folder: Path, transport: str
) -> None:
    edge, to, inside = own_edge, (own_edge.address, own_edge.sip_port), free_port()
    trunk = trunk_to(agent_port, transport=transport, server=NAME, next_hop=f"{AGENT}:{agent_port}")
    edge.route([trunk], [number_on(trunk, number)])
    contact = f"{AGENT}:{agent_port};transport={transport}"
    context = edge.authority.server_context(folder, NAME) if transport == "tls" else None
    with (
        sipp("agent_answers", folder, address=AGENT, port=inside, transport="t1", contact=contact) as agent,
        lasting_front(AGENT, agent_port, (AGENT, inside), context),
        sipp("carrier_is_hung_up_on", folder, address=CARRIER, to=to, number=number) as carrier,
    ):
        call = up(edge, number, agent)
        die(edge, ("kamailio",))
        hang_up(edge, call.id)
        carrier.wait()
        agent.wait()
    assert_ended_once(edge, call.id, "hangup", "api")
    assert_hidden(carrier, agent)


def test_a_call_that_a_provider_placed(own_edge: RunningEdge, number: str, agent_port: int, folder: Path) -> None:
    edge, (out, agent) = own_edge, trunks(number, agent_port)
    edge.route([out, agent], [number_on(out, number, agent_trunk_id=agent.id)])
    to, login = (edge.address, edge.sip_port), ("-au", agent.username or "", "-ap", "secret")
    keys = [("caller", number), ("rtp_port", "9"), ("media", "RTP/AVP 0")]
    scenario = "provider_is_hung_up_on"
    with (
        sipp("agent_answers", folder, address=AGENT, port=agent_port) as callee,
        sipp(scenario, folder, address=PROVIDER, to=to, number=CALLEE, keys=keys, extra=login) as provider,
    ):
        until("its answer is acknowledged", lambda: acknowledged(callee))
        call = until("it is answered", lambda: answered_of(edge, out.id))
        die(edge, ("kamailio",))
        hang_up(edge, call.id)
        provider.wait()
        callee.wait()
    assert_ended_once(edge, call.id, "hangup", "api")
    assert all(PROVIDER not in message for message in callee.received)


def kept(edge: RunningEdge, call_id: str) -> dict[str, Any]:
    """What the agent has on its disk of a call."""
    with contextlib.closing(sqlite3.connect(edge.folder / "edge" / "spool.sqlite")) as spool:
        rows = spool.execute("SELECT body FROM calls WHERE id = ?", (call_id,)).fetchall()
    return next((json.loads(body) for (body,) in rows), {})


def is_connected(edge: RunningEdge, call_id: str) -> bool:
    """Whether both dialogs of a call in whose middle the agent is are on its disk."""
    bridge = kept(edge, call_id).get("bridge") or {}
    return bool(bridge.get("callee") and bridge.get("agent"))


def answered_of(edge: RunningEdge, trunk_id: str) -> Call | None:
    """The answered call that went to a trunk."""
    told = (call for call in edge.calls() for event in call.events if isinstance(event, Answered))
    return next((call for call in told if any(getattr(e, "trunk_id", None) == trunk_id for e in call.events)), None)


@pytest.mark.parametrize("parts", [("kamailio",), ("agent",), ("kamailio", "agent")], ids="+".join)
def test_a_call_that_the_api_placed(
    own_edge: RunningEdge, number: str, agent_port: int, folder: Path, parts: tuple[str, ...]
) -> None:
    with placed(own_edge, folder, number, agent_port) as (call_id, _, _):
        die(own_edge, parts)
        hang_up(own_edge, call_id)
    assert_ended_once(own_edge, call_id, "hangup", "api")


@pytest.mark.parametrize("who", ["callee", "agent"])
def test_either_side_of_a_call_that_the_api_placed_may_hang_up(
    own_edge: RunningEdge, number: str, agent_port: int, folder: Path, who: str
) -> None:
    hangs_up, waits = ("agent_answers_and_hangs_up", ("-d", "12000")), ("agent_answers", ())
    of_callee, of_agent = (hangs_up, waits) if who == "callee" else (waits, hangs_up)
    extra = (of_callee[1], of_agent[1])
    with placed(own_edge, folder, number, agent_port, of_callee[0], of_agent[0], extra=extra) as (call_id, _, _):
        die(own_edge, ("kamailio",))
    assert_ended_once(own_edge, call_id, "hangup", "caller" if who == "callee" else "agent")


def test_a_call_that_was_announced_first(own_edge: RunningEdge, number: str, agent_port: int, folder: Path) -> None:
    edge, to = own_edge, (own_edge.address, own_edge.sip_port)
    announced(edge, number, SHORT, agent_port)
    sound_of(edge, SHORT)
    with (
        sipp("agent_answers", folder, address=AGENT, port=agent_port) as agent,
        sipp("carrier_is_hung_up_on", folder, address=CARRIER, to=to, number=number) as carrier,
    ):
        call = up(edge, number, agent)
        until("both dialogs are on disk", lambda: is_connected(edge, call.id))
        die(edge, ("kamailio",))
        hang_up(edge, call.id)
        carrier.wait()
        agent.wait()
    end = until("its end is told", lambda: is_at(edge, number, "ended")).ended
    assert end is not None
    assert (end.cause, end.by) == ("hangup", "api")


def test_sides_that_have_moved_are_hung_up_on_where_they_are(
    own_edge: RunningEdge, number: str, agent_port: int, folder: Path
) -> None:
    edge, trunk, to = own_edge, trunk_to(agent_port), (own_edge.address, own_edge.sip_port)
    edge.route([trunk], [number_on(trunk, number)])
    with (
        sipp("agent_moves_and_is_hung_up", folder, address=AGENT, port=agent_port) as agent,
        sipp("carrier_moves_and_is_hung_up", folder, address=CARRIER, to=to, number=number) as carrier,
    ):
        call = until("it is answered", lambda: is_at(edge, number, "answered"))
        until("both have moved", lambda: acknowledged(agent) == 2)
        die(edge, ("kamailio",))
        hang_up(edge, call.id)
        carrier.wait()
        agent.wait()
    assert_ended_once(edge, call.id, "hangup", "api")
    for side, user in ((agent, "moved-agent"), (carrier, "moved-carrier")):
        assert any(message.startswith(f"BYE sip:{user}@") for message in side.received), side.messages


def test_a_side_that_does_not_answer_its_bye_gets_it_a_few_times_and_the_end_stays(
    own_edge: RunningEdge, number: str, agent_port: int, folder: Path
) -> None:
    with talking(own_edge, folder, number, agent_port, "agent_ignores_its_bye") as (call, _, agent):
        die(own_edge, ("kamailio",))
        hang_up(own_edge, call.id)
    assert_ended_once(own_edge, call.id, "hangup", "api")
    assert len(set(byes(agent))) == 1
    assert 2 <= len(byes(agent)) <= 8


@pytest.mark.parametrize("parts", [(), ("kamailio",)], ids=["alive", "kamailio"])
def test_a_side_that_wants_credentials_for_its_bye_gets_them(
    own_edge: RunningEdge, number: str, agent_port: int, folder: Path, parts: tuple[str, ...]
) -> None:
    agents, ours = "agent_challenges_its_bye", {"username": "us", "password": "pass"}
    with talking(own_edge, folder, number, agent_port, agents, **ours) as (call, _, agent):
        die(own_edge, parts)
        hang_up(own_edge, call.id)
    assert_ended_once(own_edge, call.id, "hangup", "api")
    assert_shown_credentials(agent)


def assert_shown_credentials(side: Sipp) -> None:
    """The last BYE that a side has got brings what it asked for."""
    *_, last = (message for message in side.received if message.startswith("BYE "))
    assert 'Digest username="us"' in header(last, "Proxy-Authorization")
    assert f'uri="sip:agent@{AGENT}' in header(last, "Proxy-Authorization")


def test_a_server_that_wants_credentials_for_the_bye_of_its_caller_gets_them(
    own_edge: RunningEdge, number: str, agent_port: int, folder: Path
) -> None:
    scenarios, ours = ("agent_challenges_its_bye", "carrier_calls_and_hangs_up"), {"username": "us", "password": "pass"}
    with talking(own_edge, folder, number, agent_port, *scenarios, extra=("-d", "5000"), **ours) as (call, _, agent):
        die(own_edge, ("kamailio",))
    assert_ended_once(own_edge, call.id, "hangup", "caller")
    assert_shown_credentials(agent)


def test_a_bye_that_comes_before_the_agent_has_said_which_calls_are_up_passes_once_it_has(
    own_edge: RunningEdge, number: str, agent_port: int, folder: Path
) -> None:
    edge, carriers = own_edge, "carrier_calls_and_hangs_up"
    with talking(edge, folder, number, agent_port, carriers=carriers, extra=("-d", "3000")) as (call, carrier, _):
        for part in ("agent", "kamailio"):
            edge.kill_part(part)
        edge.start_part("kamailio")
        until("Kamailio is there", lambda: hears(edge))
        said = len(carrier.sent)
        until("the BYE has come", lambda: any(message.startswith("BYE ") for message in carrier.sent[said:]))
        edge.start_part("agent")
    assert_ended_once(edge, call.id, "hangup", "caller")


@pytest.mark.parametrize("parts", [(), ("kamailio",)], ids=["alive", "kamailio"])
def test_both_sides_of_a_call_that_the_api_placed_get_credentials_for_their_bye(
    own_edge: RunningEdge, number: str, agent_port: int, folder: Path, parts: tuple[str, ...]
) -> None:
    both = ("agent_challenges_its_bye", "agent_challenges_its_bye")
    with placed(own_edge, folder, number, agent_port, *both, password="pass") as (call_id, callee, agent):
        die(own_edge, parts)
        hang_up(own_edge, call_id)
    assert_ended_once(own_edge, call_id, "hangup", "api")
    assert_shown_credentials(callee)
    assert_shown_credentials(agent)


def test_a_call_whose_sides_have_vanished_ends_when_its_media_is_given_up(
    tmp_path_factory: pytest.TempPathFactory, number: str, agent_port: int, folder: Path
) -> None:
    settings = {"VOXPRIA_MEDIA_TIMEOUT_SECONDS": "5"}
    with RunningEdge.started(tmp_path_factory.mktemp("vanished"), settings) as edge:
        trunk, to = trunk_to(agent_port), (edge.address, edge.sip_port)
        edge.route([trunk], [number_on(trunk, number)])
        with (
            sipp("agent_answers", folder, address=AGENT, port=agent_port) as agent,
            sipp("carrier_is_hung_up_on", folder, address=CARRIER, to=to, number=number),
        ):
            call = up(edge, number, agent)
            edge.kill_part("kamailio")
        edge.start_part("kamailio")
        assert_ended_once(edge, call.id, "media_timeout", "edge")

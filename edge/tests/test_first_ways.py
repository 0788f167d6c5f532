"""The plain way of a call, and that a refusal leaves its reason."""

from pathlib import Path

from routes_of_tests import AGENT, CARRIER, number_on, trunk_to
from running_edge import RunningEdge
from sipp_tool import header, sipp


def test_a_call_reaches_the_trunks_server_and_is_told_of(
    edge: RunningEdge, number: str, agent_port: int, folder: Path
) -> None:
    trunk = trunk_to(agent_port)
    edge.route([trunk], [number_on(trunk, number)])
    to = (edge.address, edge.sip_port)
    with (
        sipp("agent_answers", folder, address=AGENT, port=agent_port) as agent,
        sipp("carrier_calls_and_hangs_up", folder, address=CARRIER, to=to, number=number) as carrier,
    ):
        carrier.wait()
        agent.wait()
    call = edge.ended_call(carrier.sip_call_id)
    assert set(call.kinds[:4]) == {"invited", "ringing", "answered", "ended"}
    assert call.ended is not None
    assert (call.ended.cause, call.ended.by, call.ended.sip_code) == ("hangup", "caller", 200)
    assert call.ended.detail is None
    assert agent.received[0].startswith(f"INVITE sip:{number}@{AGENT}:{agent_port} SIP/2.0")
    assert header(agent.received[0], "X-VoxPria-Call-Id") == call.id


def test_a_challenge_is_answered_with_the_trunks_password(
    edge: RunningEdge, number: str, agent_port: int, folder: Path
) -> None:
    trunk = trunk_to(agent_port, username="user", password="pass")
    edge.route([trunk], [number_on(trunk, number)])
    (folder / "credentials.csv").write_text("SEQUENTIAL\nuser;pass\n")
    extra = ("-inf", str(folder / "credentials.csv"))
    to = (edge.address, edge.sip_port)
    with (
        sipp("agent_challenges_and_answers", folder, address=AGENT, port=agent_port, extra=extra) as agent,
        sipp("carrier_calls_and_hangs_up", folder, address=CARRIER, to=to, number=number) as carrier,
    ):
        carrier.wait()
        agent.wait()
    assert "401" not in " ".join(carrier.received)
    assert set(edge.ended_call(carrier.sip_call_id).kinds[:4]) == {"invited", "ringing", "answered", "ended"}


def test_a_stranger_is_refused_and_the_record_says_why(edge: RunningEdge, number: str, folder: Path) -> None:
    trunk = trunk_to(5060)
    edge.route([trunk], [number_on(trunk, number)])
    to = (edge.address, edge.sip_port)
    with sipp("carrier_is_refused", folder, address="127.0.0.9", to=to, number=number) as stranger:
        stranger.wait()
    assert stranger.final_code() == 403
    call = edge.ended_call(stranger.sip_call_id)
    assert call.invited.explanation.nearest == f"the source 127.0.0.9 lies just outside {CARRIER}/32"

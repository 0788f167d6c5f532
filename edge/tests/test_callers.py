"""How numbers are written, and who a caller says that it is: read, said, and kept private where it asks for that."""

from pathlib import Path

import pytest
from routes_of_tests import AGENT, CARRIER, number_on, trunk_to
from running_edge import Call, RunningEdge
from sipp_tool import Sipp, header, sipp


def called(
    edge: RunningEdge, folder: Path, number: str, port: int, scenario: str, *, dialled: str, keys: dict[str, str]
) -> tuple[Call, Sipp]:
    trunk = trunk_to(port, country="US")
    edge.route([trunk], [number_on(trunk, number)])
    to = (edge.address, edge.sip_port)
    with (
        sipp("agent_answers", folder, address=AGENT, port=port) as agent,
        sipp(scenario, folder, address=CARRIER, to=to, number=dialled, keys=list(keys.items())) as carrier,
    ):
        carrier.wait()
        agent.wait()
    return edge.ended_call(carrier.sip_call_id), agent


@pytest.mark.parametrize(
    ("written", "how"),
    [
        ("+1{0}{1}", "as it came"),
        ("+1-{0}-{1}", "as it came, without its separators"),
        ("{0}{1};phone-context=+1", "read in its phone-context +1"),
    ],
)
def test_a_carrier_may_write_tel_uris(
    edge: RunningEdge, number: str, agent_port: int, folder: Path, written: str, how: str
) -> None:
    dialled = written.format(number[2:5], number[5:])
    call, agent = called(edge, folder, number, agent_port, "carrier_calls_by_tel_uris", dialled=dialled, keys={})
    assert (call.invited.to, call.invited.from_) == (number, "+13038921234")
    assert call.invited.explanation is not None
    tried = call.invited.explanation.tried
    assert f"dialled {dialled.partition(';')[0]}: {number} ({how})" in tried
    assert "caller +1-303-892-1234: +13038921234 (as it came, without its separators)" in tried
    assert agent.received[0].startswith(f"INVITE sip:{number}@{AGENT}:{agent_port} SIP/2.0")


@pytest.mark.parametrize(
    "written", ["%2B1{0}{1}", "+1{0}{1};npdi;rn=+13035550000", "001{0}{1}", "1-({0})-{1}", "{0}{1}"]
)
def test_a_number_is_the_same_however_it_is_written(
    edge: RunningEdge, number: str, agent_port: int, folder: Path, written: str
) -> None:
    dialled = written.format(number[2:5], number[5:])
    call, _ = called(edge, folder, number, agent_port, "carrier_calls_and_hangs_up", dialled=dialled, keys={})
    assert call.invited.to == number


@pytest.mark.parametrize(
    ("line", "privacy", "is_passed"),
    [
        ("Remote-Party-ID: <sip:+13035551111@carrier.example>;party=calling;privacy=off", "none", True),
        ("Remote-Party-ID: <sip:+13035551111@carrier.example>;party=calling;privacy=full", "none", False),
        ('Remote-Party-ID: <sip:+13035551111@carrier.example>;privacy="uri"', "none", False),
        ("Diversion: <sip:+13035551111@carrier.example>;reason=no-answer", "none", True),
        ("Diversion: <sip:+13035551111@carrier.example>;reason=no-answer;privacy=full", "none", False),
        ("History-Info: <sip:+13035551111@carrier.example>;index=1", "none", True),
        ("History-Info: <sip:+13035551111@carrier.example>;index=1", "history", False),
        ("P-Charge-Info: <sip:+13035551111@carrier.example>;npi=ISDN", "none", True),
    ],
)
def test_a_number_is_passed_unless_it_is_to_be_kept_private(
    edge: RunningEdge, number: str, agent_port: int, folder: Path, line: str, privacy: str, is_passed: bool
) -> None:
    keys = {"privacy": privacy, "more_headers": line}
    _, agent = called(edge, folder, number, agent_port, "carrier_brings_headers", dialled=number, keys=keys)
    name = line.partition(":")[0]
    assert ("+13035551111" in header(agent.received[0], name)) is is_passed
    assert "carrier.example" not in agent.received[0]

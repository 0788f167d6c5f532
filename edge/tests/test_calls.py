"""What each message of Kamailio's makes of a call."""

from datetime import UTC, datetime
from typing import get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kamailio_words import BEGIN, NUMBER, ROUTES, STRANGER, TABLE, TRUNK, base64_of, ended, heard, invite, progress
from voxpria_edge.calls import beginnings, endings, verdicts
from voxpria_edge.calls import call as calls
from voxpria_edge.calls.call import Call
from voxpria_edge.proxy import messages
from voxpria_edge.trunks.resolve import guard
from voxpria_routing import events
from voxpria_routing.decide import decide
from voxpria_routing.decision import Dial
from voxpria_routing.dialled import readings
from voxpria_routing.table import Table

pytestmark = pytest.mark.unit

GUARD = guard(allow_private=False)


def opened(
    said: dict[str, object] | None = None, routes=ROUTES
) -> tuple[messages.Invite, Dial, Call, list[events.CallEvent]]:
    message = heard(said or invite())
    assert isinstance(message, messages.Invite)
    decision = decide(Table(routes), beginnings.question(message))
    result = beginnings.opened(message, decision, "edge_1")
    assert result is not None
    return message, decision, *result


def test_an_invite_that_is_let_in_opens_a_call() -> None:
    message, _, call, (event,) = opened()
    assert isinstance(event, events.Invited)
    assert event.call_id == call.id
    assert (event.to, event.from_) == (NUMBER.e164, "+13038921234")
    assert event.at == datetime.fromtimestamp(BEGIN, UTC)
    assert (event.number_id, event.trunk_id, event.agent_id) == (NUMBER.id, TRUNK.id, NUMBER.agent_id)
    assert event.source == f"{message.source}:{message.port}"
    assert event.refusal is None
    assert call.ended_at is None
    assert call.max_duration_seconds == 120


@pytest.mark.parametrize(
    ("uri", "user"),
    [
        ("sip:+15555551234@edge.example", "+15555551234"),
        ("SIPS:%2B15555551234:pass@[::1]:5061;transport=tls?X=y", "+15555551234"),
        ("sip:+1-555-555-1234;npdi;rn=+1303@edge.example;user=phone", "+15555551234"),
        ("tel:+1-555-555-1234", "+15555551234"),
        ("Tel:(555)5551234;phone-context=+1;npdi", "+15555551234"),
        ("sip:5555551234;phone-context=+1@edge.example;user=phone", "+15555551234"),
    ],
)
def test_a_number_is_read_from_any_uri_that_can_hold_one(uri: str, user: str) -> None:
    said = invite() | {"request_uri": base64_of(uri), "from_uri": base64_of(uri)}
    message = heard(said)
    assert isinstance(message, messages.Invite)
    question = beginnings.question(message)
    for sent in (question.request_user, question.from_user):
        assert readings(sent)[0].e164 == user


def test_the_same_question_gives_the_same_call_and_events() -> None:
    said = invite()
    assert opened(said)[2:] == opened(said)[2:]
    assert opened(invite())[2].id != opened(said)[2].id


def test_call_ids_sort_by_time() -> None:
    ids = [opened(invite(BEGIN + seconds / 100))[2].id for seconds in range(50)]
    assert ids == sorted(ids)


def test_a_refused_call_of_a_known_trunk_is_opened_and_ended_at_once() -> None:
    _, decision, call, told = opened(invite(to="+15555551239"))
    invited, end = told
    assert isinstance(invited, events.Invited)
    assert isinstance(end, events.Ended)
    assert invited.refusal is not None
    assert (end.cause, end.by, end.sip_code) == ("refused", "edge", 404)
    assert end.detail == decision.explanation.summary
    assert call.ended_at == call.opened_at


def test_a_call_that_is_nobodys_leaves_no_record() -> None:
    message = heard(invite(to="+15550009999", source=STRANGER))
    assert isinstance(message, messages.Invite)
    assert beginnings.opened(message, decide(TABLE, beginnings.question(message)), "edge_1") is None


def test_no_value_of_a_number_can_add_a_header() -> None:
    message, decision, call, _ = opened()
    command = verdicts.dial(message, decision, 0, call.id, GUARD)
    lines = command.headers.split("\r\n")
    assert lines[-1] == ""
    assert all(line.startswith("X-VoxPria-") for line in lines[:-1])
    assert not any("Evil:" in line for line in lines)
    assert f"X-VoxPria-Call-Id: {call.id}" in lines


def test_the_command_dials_the_trunks_server() -> None:
    message, decision, call, _ = opened()
    command = verdicts.dial(message, decision, 0, call.id, GUARD)
    assert (command.index, command.label) == (message.index, message.label)
    assert command.request_uri == "sip:+15555551234@sip.example.com:5070;transport=tcp"
    assert b"secret" not in messages.encode(command)
    assert command.max_duration == 120
    assert command.is_guarded == 1
    allowing = verdicts.dial(message, decision, 0, call.id, guard(allow_private=True))
    assert allowing.is_guarded == 0
    assert "record-call=on" not in command.to_agent


def test_only_a_recorded_trunk_is_captured() -> None:
    trunk = msgspec.structs.replace(TRUNK, is_recorded=True)
    message, decision, call, _ = opened(routes=msgspec.structs.replace(ROUTES, trunks={trunk.id: trunk}))
    assert call.is_captured
    assert "record-call=on" in verdicts.dial(message, decision, 0, call.id, GUARD).to_agent


def test_answered_counts_once() -> None:
    call = opened()[2]
    first = heard(progress("answered", call.id))
    assert isinstance(first, messages.Answered)
    call, (event,) = calls.answered(call, first)
    assert isinstance(event, events.Answered)
    assert call.answered_at == event.at == datetime.fromtimestamp(BEGIN + 1, UTC)
    assert calls.answered(call, first) == (call, [])


def test_ringing_is_the_same_event_each_time() -> None:
    call = opened()[2]
    first, second = (heard(progress("ringing", call.id, BEGIN + seconds)) for seconds in (1, 2))
    assert calls.rang(call, first)[0].id == calls.rang(call, second)[0].id


def test_the_first_end_is_the_end() -> None:
    call = _answered()
    call, (event,) = endings.ended(call, heard(ended(call.id, by="agent")))
    assert isinstance(event, events.Ended)
    assert (event.cause, event.by, event.sip_code, event.sip_reason) == ("hangup", "agent", 200, "OK")
    assert endings.ended(call, heard(ended(call.id, BEGIN + 9, cause="max_duration", by="edge"))) == (call, [])


@pytest.mark.parametrize(
    ("cause", "code", "expected", "has_detail"),
    [
        ("rejected", 486, "rejected", False),
        ("no_answer", 408, "no_answer", False),
        ("canceled", 487, "canceled", False),
        ("credentials", 503, "rejected", True),
        ("unreachable", 503, "unreachable", True),
        ("no_media", 503, "refused", True),
        ("out_of_service", 503, "refused", True),
        ("a word of tomorrow's", 500, "lost", True),
    ],
)
def test_ends_without_an_answer(cause: str, code: int, expected: str, *, has_detail: bool) -> None:
    call = opened()[2]
    _, (event,) = endings.ended(call, heard(ended(call.id, cause=cause, code=code, reason=base64_of("Because"))))
    assert isinstance(event, events.Ended)
    assert (event.cause, event.sip_code, event.sip_reason) == (expected, code, "Because")
    assert bool(event.detail) is has_detail
    assert event.cause in get_args(events.EndCause)


def test_our_own_hang_up_has_our_reason() -> None:
    call = msgspec.structs.replace(_answered(), ending="media_timeout")
    _, (event,) = endings.ended(call, heard(ended(call.id, cause="max_duration", by="edge")))
    assert isinstance(event, events.Ended)
    assert event.cause == "media_timeout"
    _, (event,) = endings.ended(call, heard(ended(call.id, by="caller")))
    assert isinstance(event, events.Ended)
    assert event.cause == "hangup"


def test_a_lost_call_ends_with_the_same_event_as_any_other() -> None:
    call = _answered()
    lost, (event,) = endings.lost(call, datetime.fromtimestamp(BEGIN + 60, UTC), "It was lost.")
    assert isinstance(event, events.Ended)
    assert (event.cause, event.sip_code, event.detail) == ("lost", 200, "It was lost.")
    assert event.id == endings.ended(call, heard(ended(call.id)))[1][0].id
    assert endings.ended(lost, heard(ended(call.id))) == (lost, [])


def _answered() -> Call:
    call = opened()[2]
    message = heard(progress("answered", call.id))
    assert isinstance(message, messages.Answered)
    return calls.answered(call, message)[0]


@given(st.binary(max_size=200), st.binary(max_size=200), st.ip_addresses())
def test_whatever_is_dialled_there_is_a_verdict(uri: bytes, sender: bytes, source: object) -> None:
    message = heard(invite(request_uri=base64_of(uri), from_uri=base64_of(sender), source=str(source)))
    assert isinstance(message, messages.Invite)
    decision = decide(TABLE, beginnings.question(message))
    record = beginnings.opened(message, decision, "edge_1")
    if isinstance(decision, Dial):
        command = verdicts.dial(message, decision, 0, "call_1", GUARD)
    else:
        command = verdicts.reject(message, decision, record[0].id if record else "", [])
    encoded = messages.encode(command)
    assert encoded.endswith(b",")
    for event in record[1] if record else ():
        assert msgspec.json.decode(msgspec.json.encode(event), type=events.CallEvent) == event

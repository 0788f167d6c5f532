"""The two dialogs of a call, and the BYEs that are made of them when Kamailio has forgotten it."""

from typing import cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kamailio_words import NUMBER, TABLE, answered, base64_of, heard, invite
from test_calls import opened
from voxpria_edge.calls import call as calls
from voxpria_edge.calls import legs, uac
from voxpria_edge.calls.call import Call
from voxpria_edge.proxy import messages
from voxpria_edge.proxy.kamailio import Request

pytestmark = pytest.mark.unit

HEADERS = "from", "to", "call_id", "contact", "record_route"
CALLERS_ROUTES = "<sip:first.example.com;lr>, <sip:second.example.com;lr>"


def up(said: dict[str, object] | None = None, **answer: object) -> Call:
    """A call that was answered."""
    call = opened(said or invite(record_route=base64_of(CALLERS_ROUTES)))[2]
    return calls.answered(call, cast(messages.Answered, heard(answered(call.id, **answer))))[0]


def lines(request: Request) -> list[str]:
    assert request.headers.endswith("\r\n")
    return request.headers.removesuffix("\r\n").split("\r\n")


def test_each_side_is_hung_up_on_in_the_words_of_the_other() -> None:
    call = up()
    to_agent, to_caller = uac.byes(call)
    assert (to_agent.method, to_caller.method) == ("BYE", "BYE")
    assert (to_agent.uri, to_agent.next_hop) == ("sip:desk@10.0.0.7:5070;transport=tcp", "sip:near.example.com;lr")
    assert (to_caller.uri, to_caller.next_hop) == ("sip:carrier@203.0.113.1:5062", "sip:first.example.com;lr")
    assert lines(to_agent) == [
        "Max-Forwards: 70",
        "Route: <sip:near.example.com;lr>",
        "Route: <sip:far.example.com;lr>",
        "From: <sip:+13038921234@edge.example.com>;tag=tag",
        f'To: "Desk" <sip:{NUMBER.e164}@sip.example.com>;tag=theirs',
        "Call-ID: call-as-kamailio-has-it",
        "CSeq: 2147483646 BYE",
        "TH: dlv",
    ]
    assert lines(to_caller) == [
        "Max-Forwards: 70",
        "Route: <sip:first.example.com;lr>",
        "Route: <sip:second.example.com;lr>",
        f"From: <sip:{NUMBER.e164}@edge.example.com>;tag=theirs",
        "To: <sip:+13038921234@carrier.example.com>;tag=tag",
        f"Call-ID: {call.sip_call_id}",
        "CSeq: 2147483646 BYE",
    ]


def test_the_places_of_a_call_are_those_of_both_sides_and_their_proxies() -> None:
    call = up()
    assert legs.places(call.to_caller, call.to_agent).split() == [
        *("203.0.113.1", "first.example.com", "second.example.com"),
        *("10.0.0.7", "near.example.com", "far.example.com"),
    ]
    assert legs.places(call.to_caller, None) == ""


def challenged(cseq: int, *tags: str) -> messages.ByeChallenged:
    head = (
        f"SIP/2.0 401 Unauthorized\r\nCSeq: {cseq} BYE\r\n"
        'WWW-Authenticate: Digest realm="r", nonce="n", algorithm=MD5\r\n\r\n'
    )
    said = {
        "kind": "bye_challenged",
        "from_tag": base64_of(tags[0]),
        "to_tag": base64_of(tags[1]),
        "code": 401,
        "head": base64_of(head),
    }
    return cast(messages.ByeChallenged, heard(said))


def test_a_bye_is_said_once_more_with_the_credentials_of_the_trunks_server() -> None:
    call, tags = up(), ("tag", "theirs")
    again = uac.bye_again(call, challenged(2147483646, *tags), TABLE.trunks)
    assert again is not None
    first, _ = uac.byes(call)
    assert (again.uri, again.next_hop) == (first.uri, first.next_hop)
    *same, authorization = lines(again)
    assert same == [line.replace("2147483646", "2147483647") for line in lines(first)]
    assert authorization.startswith('Authorization: Digest username="user"')
    assert f'uri="{first.uri}"' in authorization
    assert uac.bye_again(call, challenged(2147483647, *tags), TABLE.trunks) is None


@pytest.mark.parametrize("tags", [("theirs", "tag"), ("tag", "other")])
def test_no_caller_and_no_other_call_is_shown_credentials(tags: tuple[str, str]) -> None:
    assert uac.bye_again(up(), challenged(1, *tags), TABLE.trunks) is None


def test_without_credentials_nothing_is_said_again() -> None:
    assert uac.bye_again(up(), challenged(1, "tag", "theirs"), {}) is None


def test_a_side_that_has_moved_is_hung_up_on_where_it_is() -> None:
    call = up(invite())
    said = {
        "kind": "moved",
        "id": "00000000-0000-0000-0000-000000000000",
        "at": "1790000002.0",
        "record": base64_of(call.id),
        "caller": base64_of("<sip:carrier@203.0.113.2:5099>"),
        "agent": "",
    }
    moved = calls.moved(call, cast(messages.Moved, heard(said)))
    assert moved.to_agent == call.to_agent
    _, to_caller = uac.byes(moved)
    assert to_caller.uri == to_caller.next_hop == "sip:carrier@203.0.113.2:5099"


def test_what_is_kept_of_a_call_is_the_same_from_disk() -> None:
    call = up()
    assert msgspec.json.decode(msgspec.json.encode(call), type=Call) == call


@pytest.mark.parametrize(
    "broken",
    [
        {"contact": ""},
        {"contact": base64_of("<tel:+15550001>")},
        {"to": base64_of("<sip:desk@example.com>")},
        {"record_route": base64_of("<sip:a@b;lr>\r\nX-Evil: 1")},
        {"call_id": base64_of("a\r\nX-Evil: 1")},
    ],
)
def test_an_answer_that_makes_no_dialog_leaves_none(broken: dict[str, str]) -> None:
    call = up(**broken)
    assert call.answered_at is not None
    assert len(uac.byes(call)) < 2


@given(
    st.fixed_dictionaries({name: st.text(max_size=80) for name in ("from", "to", "call_id", "contact", "record_route")})
)
def test_nothing_that_a_side_says_adds_a_line(said: dict[str, str]) -> None:
    call = up(**{name: base64_of(value) for name, value in said.items()})
    for request in uac.byes(call):
        assert [line for line in lines(request) if line.splitlines() != [line]] == []


def test_a_call_in_whose_middle_we_are_keeps_its_own_dialogs_only() -> None:
    call = opened(invite())[2]
    middle = msgspec.structs.replace(call, bridge=calls.Bridge(), to_caller=None)
    assert not uac.byes(calls.answered(middle, cast(messages.Answered, heard(answered(call.id))))[0])


def test_an_older_kamailios_answer_is_an_answer() -> None:
    call = opened()[2]
    message = heard({"kind": "answered", "id": "0" * 8 + "-0000" * 3 + "-" + "0" * 12, "at": "1.0", "record": ""})
    assert calls.answered(call, cast(messages.Answered, message))[0].answered_at is not None
    assert legs.to_agent(cast(messages.Answered, message)) is None

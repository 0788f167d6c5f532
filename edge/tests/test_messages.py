"""The words between Kamailio and the agent, hostile ones too."""

import json
from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kamailio_words import base64_of, ended, heard, invite, progress
from voxpria_edge.proxy import messages

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        (invite(), messages.Invite),
        (progress("ringing", "call_1"), messages.Progress),
        (progress("answered", "call_1"), messages.Answered),
        (ended("call_1"), messages.Ended),
        ({"kind": "live", "record": "call_1"}, messages.Live),
        ({"kind": "resent"}, messages.Resent),
    ],
)
def test_every_message_is_understood(said: dict[str, object], kind: type) -> None:
    assert isinstance(heard(said), kind)


@pytest.mark.parametrize(
    "broken",
    [
        {"kind": "invite"},
        {"kind": "unheard of", "id": "1"},
        invite(label="one"),
        invite(id="not a uuid"),
        ended("call_1", by="nobody"),
        {**progress("ringing", "call_1"), "at": "nan"},
        {**progress("ringing", "call_1"), "at": "9" * 400},
        [],
        None,
    ],
)
def test_what_is_no_message_is_refused(broken: object) -> None:
    with pytest.raises(msgspec.DecodeError):
        messages.decode(json.dumps(broken).encode())


@given(st.binary(max_size=400))
def test_any_bytes_are_a_message_or_a_decode_error(data: bytes) -> None:
    try:
        messages.decode(data)
    except msgspec.DecodeError:
        return


@given(st.text(max_size=100))
def test_any_text_in_a_base64_field_is_text(field: str) -> None:
    assert isinstance(messages.text(field), str)


@given(st.binary(max_size=200))
def test_any_bytes_in_base64_come_through_as_text(data: bytes) -> None:
    shown = data.decode(errors="backslashreplace").replace("\0", r"\x00")  # PostgreSQL keeps no NUL
    assert messages.text(base64_of(data)) == shown


@given(st.decimals(0, 99_999_999_999, places=6, allow_nan=False))
def test_every_time_that_is_let_in_is_a_time(at: object) -> None:
    message = heard({**progress("ringing", "call_1"), "at": str(at)})
    assert isinstance(message, messages.Progress)
    assert messages.time(message.at).tzinfo is UTC


def test_a_time_keeps_its_microseconds() -> None:
    assert messages.time("1790000000.250001") == datetime.fromtimestamp(1790000000.250001, UTC)


@given(st.text(max_size=300), st.integers(100, 699))
def test_a_command_is_one_netstring_whatever_is_in_it(reason: str, code: int) -> None:
    encoded = messages.encode(messages.Reject(index=1, label=2, code=code, reason=reason))
    length, _, rest = encoded.partition(b":")
    assert rest[int(length) :] == b","
    assert json.loads(rest[:-1]) == {
        "index": 1,
        "label": 2,
        "code": code,
        "reason": reason,
        "headers": "",
        "is_once": 0,
        "verdict": "reject",
    }

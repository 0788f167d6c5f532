"""rtpengine's bencode: there and back, and whatever else may come."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from voxpria_edge.media.rtpengine import Value, decode, encode, read_flags

pytestmark = pytest.mark.unit

_words = st.text(max_size=30)
_values = st.recursive(
    st.integers() | _words,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(_words, inner, max_size=5),
    max_leaves=30,
)


@given(_values)
def test_what_is_encoded_comes_back(value: Value) -> None:
    assert decode(encode(value)) == value


@given(st.binary(max_size=60))
def test_bytes_that_are_no_utf8_come_back(data: bytes) -> None:
    encoded = b"%d:%s" % (len(data), data)
    assert encode(decode(encoded)) == encoded


def test_as_the_protocols_own_example() -> None:
    assert encode({"command": "ping"}) == b"d7:command4:pinge"
    assert decode(b"d6:result4:ponge") == {"result": "pong"}


@given(st.binary(max_size=200))
def test_any_bytes_are_a_value_or_a_value_error(data: bytes) -> None:
    try:
        decode(data)
    except ValueError:
        return


@given(_values, st.data())
def test_a_damaged_value_is_a_value_or_a_value_error(value: Value, data: st.DataObject) -> None:
    whole = bytearray(encode(value))
    for _ in range(3):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        decode(bytes(whole[: data.draw(st.integers(0, len(whole)))]))
    except ValueError:
        return


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"i",
        b"ie",
        b"i1",
        b"5:abc",
        b"-1:",
        b"99999999999999999999:a",
        b"l",
        b"d",
        b"d1:ae",
        b"di1e1:ae",
        b"i1ei2e",
        b"l" * 100_000,
        b"i" + b"9" * 10_000 + b"e",
    ],
)
def test_what_is_not_bencode_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r".*"):
        decode(data)


def test_flags_are_what_kamailios_module_makes_of_them() -> None:
    text = (
        "replace-origin replace-session-connection trust-address ICE=remove DTLS=off address-family=IP4 RTP/SAVP"
        " OSRTP-accept SDES-pad SDES-no-NULL_HMAC_SHA1_80 codec-transcode-PCMU codec-transcode-G722 codec-mask-all"
        " record-call=on port-latching"
    )
    assert read_flags(text) == {
        "replace": ["origin", "session-connection"],
        "flags": ["trust-address", "port-latching"],
        "ICE": "remove",
        "DTLS": "off",
        "address-family": "IP4",
        "transport-protocol": "RTP/SAVP",
        "OSRTP": ["accept"],
        "SDES": ["pad", "no-NULL_HMAC_SHA1_80"],
        "codec": {"transcode": ["PCMU", "G722"], "mask": ["all"]},
        "record call": "on",
    }
    assert read_flags("SDES=off") == {"SDES": ["off"]}

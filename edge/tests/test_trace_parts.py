"""Evidence, its pure parts: what is mirrored is read, and no secret comes through."""

import struct
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from voxpria_edge.trace import hep, story
from voxpria_edge.trace.redact import redact
from voxpria_edge.trace.store import MOST_MESSAGES_A_CALL, Due, Store
from voxpria_edge.trace.story import Seen

pytestmark = pytest.mark.unit

CARRIER, EDGE, AGENT = ("203.0.113.1", 5060), ("198.51.100.1", 5060), ("192.0.2.1", 5061)
SDP = (
    b"v=0\r\nm=audio 4000 RTP/SAVP 0\r\n"
    b"a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9|2^20\r\n"
    b"k=clear:topsecret\r\na=ice-pwd:asd88fgpdd777uzjYhagZg\r\na=key-mgmt:mikey AQAFgM0\r\n"
)


def chunk(kind: int, data: bytes) -> bytes:
    return struct.pack(">HHH", 0, kind, 6 + len(data)) + data


def packet(payload: bytes, *extra: bytes) -> bytes:
    body = b"".join(
        (
            chunk(1, b"\x02"),
            chunk(2, b"\x06"),
            chunk(3, bytes((203, 0, 113, 1))),
            chunk(4, bytes((198, 51, 100, 1))),
            chunk(7, struct.pack(">H", 5060)),
            chunk(8, struct.pack(">H", 5070)),
            chunk(9, struct.pack(">I", 1_790_000_000)),
            chunk(10, struct.pack(">I", 250_000)),
            *extra,
            chunk(15, payload),
        )
    )
    return b"HEP3" + struct.pack(">H", 6 + len(body)) + body


def test_a_mirrored_message_keeps_time_and_addresses() -> None:
    assert hep.decode(packet(b"SIP")) == hep.Mirrored(
        1_790_000_000.25, ("203.0.113.1", 5060), ("198.51.100.1", 5070), b"SIP", "tcp"
    )


@given(st.binary(max_size=120))
def test_any_bytes_are_hep_or_a_value_error(data: bytes) -> None:
    for each in (data, b"HEP3" + struct.pack(">H", 6 + len(data)) + data):
        try:
            hep.decode(each)
        except ValueError:
            continue


@given(st.data())
def test_a_damaged_packet_is_hep_or_a_value_error(data: st.DataObject) -> None:
    whole = bytearray(packet(b"OPTIONS sip:a SIP/2.0"))
    for _ in range(3):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        hep.decode(bytes(whole[: data.draw(st.integers(0, len(whole)))]))
    except ValueError:
        return


def test_no_secret_of_a_message_comes_through() -> None:
    message = (
        b"INVITE sip:bob:hunter2@example.com SIP/2.0\r\n"
        b"Via: SIP/2.0/TLS 203.0.113.1;branch=z9hG4bK1\r\n"
        b'Proxy-Authorization: Digest username="bob",\r\n realm="a, realm", nonce="n0nce", uri="sip:x",\r\n'
        b'\tresponse="0123456789abcdef0123456789abcdef", cnonce="c1ient"\r\n'
        b"authorization :  Basic Ym9iOmh1bnRlcjI=\r\n"
        b"X-VoxPria-First-Message: eels\r\nX-Api-Key: sk-1\r\nX-Session-Token: t0ken\r\n"
        b"From: <sip:alice:wonder@example.com>;tag=1\r\n"
        b"Content-Type: application/sdp\r\nl: 400\r\n\r\n" + SDP
    )
    shown = redact(message)
    for secret in (
        *("hunter2", "n0nce", "0123456789abcdef", "c1ient", "Ym9i", "eels", "sk-1", "t0ken", "wonder"),
        *("WVNf", "topsecret", "asd88", "AQAF"),
    ):
        assert secret not in shown
    assert 'Proxy-Authorization: Digest [removed], username="bob", realm="a, realm", uri="sip:x"' in shown
    assert "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:removed+removed+removed+removed+removed+" in shown
    head, _, body = shown.partition("\r\n\r\n")
    assert f"l: {len(body)}" in head
    assert "m=audio 4000 RTP/SAVP 0" in body


def test_dialled_digits_and_unknown_bodies_are_not_kept() -> None:
    shown = redact(b"INFO sip:a SIP/2.0\r\nContent-Type: application/dtmf-relay\r\n\r\nSignal=4\r\nDuration=160\r\n")
    assert "Signal" not in shown
    assert shown.endswith("[24 bytes removed]")


@given(st.binary(max_size=600))
def test_whatever_comes_is_shown_as_text(data: bytes) -> None:
    redact(data).encode()


@given(st.text(alphabet=st.characters(codec="ascii", exclude_characters='\r\n"\\,'), min_size=8, max_size=30))
def test_no_answer_to_a_challenge_comes_through_however_it_is_written(answer: str) -> None:
    for header in ("Authorization", "PROXY-AUTHORIZATION", "authorization "):
        value = f'Digest username="u", response="{answer}"'
        shown = redact(f"INVITE sip:a SIP/2.0\r\n{header}:{value}\r\n\r\n".encode())
        assert f'response="{answer}"' not in shown


def seen(at: float, source: hep.Address, destination: hep.Address, text: str) -> Seen:
    return Seen(at, source, destination, text.replace("\n", "\r\n"))


INVITE = "INVITE sip:a SIP/2.0\nVia: SIP/2.0/{}\nCSeq: 1 INVITE\n\n"
CALL = [
    seen(10.0, CARRIER, EDGE, INVITE.format("UDP")),
    seen(10.001, EDGE, CARRIER, "SIP/2.0 100 Trying\nCSeq: 1 INVITE\n\n"),
    seen(10.005, EDGE, AGENT, INVITE.format("TLS")),
    seen(10.105, AGENT, EDGE, "SIP/2.0 180 Ringing\nVia: SIP/2.0/TLS\nCSeq: 1 INVITE\n\n"),
    seen(10.106, EDGE, CARRIER, "SIP/2.0 180 Ringing\nCSeq: 1 INVITE\n\n"),
    seen(11.005, AGENT, EDGE, "SIP/2.0 200 OK\nCSeq: 1 INVITE\n\n"),
    seen(11.006, EDGE, CARRIER, "SIP/2.0 200 OK\nCSeq: 1 INVITE\n\n"),
    seen(11.046, (CARRIER[0], 6060), EDGE, "ACK sip:a SIP/2.0\nCSeq: 1 ACK\n\n"),
]
NOW = datetime(2026, 3, 4, tzinfo=UTC)


def told(messages: list[Seen]) -> story.Trace:
    return story.trace("call_1", messages, lambda address: address == EDGE, is_truncated=False)


def test_a_trace_tells_the_legs_apart_and_is_in_order() -> None:
    trace = told(list(reversed(CALL)))
    assert [m.leg[0] for m in trace.messages] == list("ccaacacc")
    assert [m.is_received for m in trace.messages] == [True, False, False, True, False, True, False, True]
    assert trace.messages[2].transport == trace.messages[3].transport == "tls"
    assert trace.messages[0].source == "203.0.113.1:5060"


def test_what_was_stamped_late_still_comes_before_its_answer() -> None:
    bye = "BYE sip:a SIP/2.0\nVia: SIP/2.0/UDP 198.51.100.1;branch=z9hG4bK-1\nCSeq: 2 BYE\n\n"
    ok = "SIP/2.0 200 OK\nVia: SIP/2.0/UDP 198.51.100.1;branch=z9hG4bK-1\nCSeq: 2 BYE\n\n"
    refused = "SIP/2.0 403 Forbidden\nVia: SIP/2.0/UDP 203.0.113.1;branch=z9hG4bK-2\nCSeq: 1 INVITE\n\n"
    ack = "ACK sip:a SIP/2.0\nVia: SIP/2.0/UDP 203.0.113.1;branch=z9hG4bK-2\nCSeq: 1 ACK\n\n"
    late = [
        seen(10.3, AGENT, EDGE, ok),
        seen(10.4, EDGE, AGENT, bye),
        seen(10.1, CARRIER, EDGE, ack),
        seen(10.2, EDGE, CARRIER, refused),
    ]
    messages = told([*CALL[:1], *late]).messages
    assert [m.text.split()[0] + m.text.split()[1] for m in messages[1:]] == [
        *("SIP/2.0403", "ACKsip:a", "BYEsip:a", "SIP/2.0200"),
    ]
    assert [m.at.timestamp() for m in messages[1:]] == pytest.approx([10.1, 10.1, 10.3, 10.3])


def test_where_the_time_went() -> None:
    timed = story.timed(told(CALL), NOW)
    assert timed is not None
    parts = (timed.post_dial_delay_ms, timed.edge_ms, timed.agent_ringing_ms, timed.agent_answer_ms)
    assert parts == pytest.approx((106, 5, 100, 1000), abs=0.2)
    assert timed.carrier_ack_ms == pytest.approx(40, abs=0.2)


def test_what_was_not_seen_took_no_known_time() -> None:
    timed = story.timed(told(CALL[:3]), NOW)
    assert timed is not None
    assert (timed.post_dial_delay_ms, timed.agent_answer_ms, timed.carrier_ack_ms) == (None, None, None)
    assert story.timed(told(CALL[:2]), NOW) is None
    assert story.timed(told([]), NOW) is None


def test_an_ipv6_address_is_bracketed() -> None:
    (message,) = told([seen(1, ("2001:db8::1", 5060), EDGE, INVITE)]).messages
    assert message.source == "[2001:db8::1]:5060"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "trace.sqlite")


def test_a_call_keeps_so_many_messages(store: Store) -> None:
    store.add(("key", seen(100 + i, CARRIER, EDGE, "x")) for i in range(MOST_MESSAGES_A_CALL + 50))
    kept = store.messages(Due("call_1", "key", 100, is_over=True))
    assert [message.at for message in kept] == [100 + i for i in range(MOST_MESSAGES_A_CALL)]


def test_a_call_is_due_after_its_answer_and_gone_after_its_end(store: Store) -> None:
    store.add([("key", seen(100, CARRIER, EDGE, "x"))])
    store.open_call("call_1", "key", 100)
    assert not store.due(1000, 10)
    store.make_due("call_1", 101, is_over=False)
    (due,) = store.due(101, 10)
    store.make_due("call_1", 102, is_over=True)
    store.done(due)
    (due,) = store.due(102, 10)
    assert due.is_over
    assert len(store.messages(due)) == 1
    store.done(due)
    assert not store.due(1000, 10)
    assert not store.messages(due)


def test_what_nobody_claims_goes(store: Store) -> None:
    store.add([("scanner", seen(100, CARRIER, EDGE, "x")), ("ours", seen(100, CARRIER, EDGE, "x"))])
    store.open_call("call_1", "ours", 100)
    store.sweep(300)
    assert not store.messages(Due("", "scanner", 100, is_over=True))
    assert store.messages(Due("call_1", "ours", 100, is_over=True))


def test_after_a_crash_every_call_is_due_that_is_not_open(store: Store) -> None:
    store.open_call("call_1", "a", 100)
    store.open_call("call_2", "b", 100)
    store.make_all_due_but(["call_2"], 200)
    assert [(due.call_id, due.is_over) for due in store.due(200, 10)] == [("call_1", True)]


def test_a_broken_file_is_begun_anew(tmp_path: Path) -> None:
    (tmp_path / "trace.sqlite").write_bytes(b"no database at all" * 500)
    Store(tmp_path / "trace.sqlite").close()

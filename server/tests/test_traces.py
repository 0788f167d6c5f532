"""Evidence: a call's SIP messages, taken from its edge, shown to its account alone, as JSON and as a capture file."""

import gzip
import struct
from datetime import timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from voxpria_routing.events import Timed
from voxpria_routing.hosts import host_port
from voxpria_routing.trace import Message, Trace
from voxpria_server.calls import pcap
from voxpria_server.kit.ids import new_id

from server.tests.edge_client import Story, connect

INVITE = "INVITE sip:+15555551234@198.51.100.1 SIP/2.0\r\nCall-ID: 1@carrier.test\r\nContent-Length: 0\r\n\r\n"


@pytest.fixture
async def edge(api):
    return await connect(api)


def message(story: Story, seconds: float, text: str = INVITE, **fields) -> Message:
    values = {
        "source": "203.0.113.1:5060",
        "destination": "198.51.100.1:5070",
        "transport": "udp",
        "leg": "carrier",
        "is_received": True,
    } | fields
    return Message(at=story.start + timedelta(seconds=seconds), text=text, **values)


def trace_of(story: Story) -> Trace:
    ringing = "SIP/2.0 180 Ringing\r\nContent-Length: 0\r\n\r\n"
    back = {"source": "198.51.100.1:5070", "destination": "203.0.113.1:5060", "is_received": False}
    return Trace(call_id=story.id, messages=(message(story, 0), message(story, 0.125, ringing, **back)))


async def hand_over(edge, trace: Trace, call_id: str | None = None, content: bytes | None = None):
    content = gzip.compress(msgspec.json.encode(trace)) if content is None else content
    return await edge.client.put(f"/edge/v1/calls/{call_id or trace.call_id}/trace?edge_id=edge_1", content=content)


async def test_a_calls_messages_are_shown_with_the_decision_and_the_timings(client, edge):
    story = Story()
    assert (await hand_over(edge, trace_of(story))).status_code == 204
    timed = story._make(
        Timed,
        9,
        post_dial_delay_ms=125.0,
        edge_ms=4.5,
        agent_ringing_ms=100.0,
        agent_answer_ms=None,
        carrier_ack_ms=None,
    )
    await edge.send(*story.completed(), timed)
    body = (await client.get(f"/v1/calls/{story.id}/trace")).json()
    assert [m["summary"] for m in body["messages"]] == [
        "INVITE sip:+15555551234@198.51.100.1 SIP/2.0",
        "SIP/2.0 180 Ringing",
    ]
    assert [m["offset_ms"] for m in body["messages"]] == [0, 125]
    assert [m["direction"] for m in body["messages"]] == ["received", "sent"]
    assert body["messages"][0]["text"] == INVITE
    assert body["decision"]["summary"].startswith("+15555551234 goes to the agent.")
    assert body["timings"]["post_dial_delay_ms"] == 125
    assert body["timings"]["agent_answer_ms"] is None
    call = (await client.get(f"/v1/calls/{story.id}")).json()
    assert call["timings"] == body["timings"]
    assert call["issues"] == []


async def test_a_call_without_messages_says_so(client, edge):
    story = Story()
    await edge.send(*story.completed())
    body = (await client.get(f"/v1/calls/{story.id}/trace")).json()
    assert body["messages"] == []
    assert body["timings"] is None
    answer = await client.get(f"/v1/calls/{story.id}/trace.pcap")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "trace_not_found")


async def test_nobody_sees_the_messages_of_another_account_or_mode(api, client, edge):
    story = Story()
    await hand_over(edge, trace_of(story))
    await edge.send(*story.completed())
    stranger = await api.client(await api.new_key())
    other_mode = await api.client(await api.new_key(mode="live", account_id="acct_sandbox"))
    for who, status in ((client, 200), (stranger, 404), (other_mode, 404), (await api.client(None), 401)):
        for path in ("trace", "trace.pcap"):
            assert (await who.get(f"/v1/calls/{story.id}/{path}")).status_code == status


async def test_a_later_trace_replaces_an_earlier(client, edge):
    story = Story()
    await edge.send(*story.completed())
    whole = trace_of(story)
    await hand_over(edge, msgspec.structs.replace(whole, messages=whole.messages[:1]))
    await hand_over(edge, whole)
    assert len((await client.get(f"/v1/calls/{story.id}/trace")).json()["messages"]) == 2


@pytest.mark.parametrize(
    "content",
    [b"", b"no gzip", gzip.compress(b"{}"), gzip.compress(b"null"), gzip.compress(bytes(20_000_000))],
    ids=["empty", "no gzip", "no trace", "null", "bomb"],
)
async def test_what_is_no_trace_is_refused(edge, content):
    assert (await hand_over(edge, trace_of(Story()), content=content)).status_code == 400


async def test_a_trace_of_another_call_or_of_none_is_refused(edge):
    assert (await hand_over(edge, trace_of(Story()), call_id=new_id("call"))).status_code == 400
    assert (await hand_over(edge, trace_of(Story()), call_id="call_1")).status_code == 404


async def test_the_capture_file_holds_every_message(client, edge):
    story = Story()
    await hand_over(edge, trace_of(story))
    await edge.send(*story.completed())
    answer = await client.get(f"/v1/calls/{story.id}/trace.pcap")
    assert answer.headers["content-type"] == "application/vnd.tcpdump.pcap"
    packets = read(answer.content)
    assert [at for at, *_ in packets] == [story.start.timestamp(), story.start.timestamp() + 0.125]
    (_, source, destination, payload), _ = packets
    assert (source, destination) == (("203.0.113.1", 5060), ("198.51.100.1", 5070))
    assert payload == INVITE.encode()


def read(capture: bytes) -> list[tuple]:
    """Read a capture file as its format's description says, and check every sum in it."""
    assert struct.unpack_from("<IHHiIII", capture) == (0xA1B2C3D4, 2, 4, 0, 0, 65535, 101)
    found, at = [], 24
    while at < len(capture):
        seconds, micros, length, original = struct.unpack_from("<IIII", capture, at)
        assert length == original
        packet = capture[at + 16 : at + 16 + length]
        assert len(packet) == length
        found.append((seconds + micros / 1e6, *_udp(packet)))
        at += 16 + length
    return found


def _udp(packet: bytes) -> tuple:
    if packet[0] >> 4 == 4:
        assert struct.unpack_from(">H", packet, 2)[0] == len(packet)
        assert _sum(packet[:20]) == 0xFFFF
        addresses, datagram = packet[12:20], packet[20:]
        names = [".".join(map(str, addresses[i : i + 4])) for i in (0, 4)]
    else:
        assert struct.unpack_from(">H", packet, 4)[0] == len(packet) - 40
        addresses, datagram = packet[8:40], packet[40:]
        names = [addresses[i : i + 16].hex() for i in (0, 16)]
    source, destination, length, _ = struct.unpack_from(">HHHH", datagram)
    assert length == len(datagram)
    assert _sum(addresses + struct.pack(">IHBB", length, 0, 0, 17) + datagram) == 0xFFFF
    return (names[0], source), (names[1], destination), datagram[8:]


def _sum(data: bytes) -> int:
    total = sum(int.from_bytes(data[i : i + 2].ljust(2, b"\0"), "big") for i in range(0, len(data), 2))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total


@pytest.mark.unit
@given(
    st.lists(
        st.tuples(st.ip_addresses(v=4) | st.ip_addresses(v=6), st.integers(1, 65535), st.text(max_size=300)), max_size=5
    )
)
def test_any_messages_make_a_capture_whose_sums_are_right(parts):
    story = Story()
    messages = [
        message(
            story,
            i,
            text,
            source=host_port(str(address), port),
            destination="[2001:db8::1]:5060" if address.version == 6 else "198.51.100.1:5060",
        )
        for i, (address, port, text) in enumerate(parts)
    ]
    packets = read(pcap.capture(messages))
    assert [payload for *_, payload in packets] == [text.encode() for *_, text in parts]

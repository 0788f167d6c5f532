"""Session descriptions: what is offered, and what is answered."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st
from voxpria_sandbox.sip import sdp
from voxpria_sip.uri import MalformedError

pytestmark = pytest.mark.unit

OFFER = """v=0
o=x 1 1 IN IP4 127.0.0.9
s=-
c=IN IP4 127.0.0.9
t=0 0
a=sendonly
m=video 5000 RTP/AVP 99
a=rtpmap:99 H264/90000
m=audio 4000 RTP/SAVP 0
m=audio 4002 RTP/AVP 111 8 0 96
c=IN IP4 127.0.0.10
a=rtpmap:111 opus/48000/2
a=rtpmap:8 PCMA/8000
a=rtpmap:96 telephone-event/8000
""".replace("\n", "\r\n").encode()


def test_the_first_plain_audio_is_taken_and_the_rest_refused_in_place() -> None:
    offered = sdp.parse(OFFER)
    assert (offered.address, offered.port, offered.codecs) == (
        *("127.0.0.10", 4002),
        ("OPUS", "PCMA", "PCMU"),
    )
    assert offered.payload_types == (111, 8, 0)
    assert (offered.event_payload_type, offered.direction, offered.is_held) == (96, "sendonly", True)
    answer = sdp.Session("127.0.0.2", 7000).answer(offered).decode().splitlines()
    media = [line for line in answer if line.startswith("m=")]
    assert media == ["m=video 0 RTP/AVP 99", "m=audio 0 RTP/SAVP 0", "m=audio 7000 RTP/AVP 111 96"]
    assert "a=rtpmap:111 opus/48000/2" in answer
    assert "a=recvonly" in answer
    assert "a=rtpmap:96 telephone-event/8000" in answer


def test_an_answer_holds_one_codec_and_no_events_that_were_not_offered() -> None:
    offered = sdp.parse(OFFER.replace(b" 111 8 0 96", b" 0 8").replace(b"a=sendonly\r\n", b""))
    answered = sdp.parse(sdp.Session("127.0.0.2", 7000).answer(offered))
    assert (answered.codecs, answered.event_payload_type, answered.direction) == (("PCMU",), None, "sendrecv")


def test_our_offer_is_one_that_we_take_and_its_version_rises() -> None:
    session = sdp.Session("::1", 7000)
    offers = [session.offer().decode() for _ in range(2)]
    assert sdp.parse(offers[0].encode()).codecs == ("PCMU", "PCMA")
    origins = [offer.splitlines()[1].split() for offer in offers]
    assert origins[0][1] == origins[1][1]
    assert [origin[2] for origin in origins] == ["1", "2"]


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        (b"v=0", b"v=1", MalformedError),
        (b"m=audio 4002", b"m=audio 99999", MalformedError),
        (b"m=audio 4002", b"m=audio x", MalformedError),
        (b"c=IN IP4 127.0.0.10", b"c=IN IP4", MalformedError),
        (b"c=IN IP4 127.0.0.10", b"c=IN IP4 evil.example", sdp.UnacceptableError),
        (b" 111 8 0 96", b" 112", sdp.UnacceptableError),
        (b"m=audio 4002", b"m=audio 0", sdp.UnacceptableError),
        (b"s=-", b"s=\xff", MalformedError),
    ],
)
def test_refused(old: bytes, new: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        sdp.parse(OFFER.replace(old, new))


@given(st.data())
def test_a_damaged_description_is_parsed_or_refused(data: st.DataObject) -> None:
    damaged = bytearray(OFFER)
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        damaged[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=6))
    try:
        offered = sdp.parse(bytes(damaged))
    except (MalformedError, sdp.UnacceptableError):
        return
    sdp.parse(sdp.Session("127.0.0.2", 7000).answer(offered))


@pytest.mark.parametrize("profile", ["RTP/SAVP", "RTP/AVP"])
def test_an_encrypted_offer_is_answered_with_a_key_of_our_own(profile: str) -> None:
    key = base64.b64encode(bytes(range(30))).decode()
    media = f"m=audio 4000 {profile} 0\r\na=crypto:3 {sdp.SUITE} inline:{key}|2^31\r\n".encode()
    offered = sdp.parse(OFFER[: OFFER.index(b"m=video")] + media)
    assert offered.key == sdp.Key(3, bytes(range(30)))
    session = sdp.Session("127.0.0.2", 7000)
    answer = session.answer(offered)
    assert f"m=audio 7000 {profile} 0\r\n".encode() in answer
    assert sdp.parse(answer).key == sdp.Key(3, session.secret)


def test_a_suite_that_we_do_not_speak_is_no_key() -> None:
    media = b"m=audio 4000 RTP/SAVP 0\r\na=crypto:1 NULL_HMAC_SHA1_80 inline:" + b"A" * 40 + b"\r\n"
    with pytest.raises(sdp.UnacceptableError):
        sdp.parse(OFFER[: OFFER.index(b"m=video")] + media)

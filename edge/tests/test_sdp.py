import pytest
from hypothesis import given
from hypothesis import strategies as st
from voxpria_edge.media import sdp
from voxpria_routing.media import Offered

pytestmark = pytest.mark.unit

HEAD = "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n"
KEY = "inline:WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz|2^20|1:4"


def offered(*lines: str) -> Offered:
    return sdp.offered(HEAD + "\r\n".join(lines) + "\r\n")


def test_codecs_in_their_order_without_telephone_events() -> None:
    lines = ("m=audio 4000 RTP/AVP 96 0 101 9 13", "a=rtpmap:96 opus/48000/2", "a=rtpmap:101 telephone-event/8000")
    assert offered(*lines) == Offered(codecs=("opus", "PCMU", "G722"), encryption="none")


@pytest.mark.parametrize(
    ("profile", "crypto", "encryption"),
    [
        ("RTP/AVP", "", "none"),
        ("RTP/AVP", f"a=crypto:1 AES_CM_128_HMAC_SHA1_80 {KEY}", "optional"),
        ("RTP/SAVP", f"a=crypto:1 AES_CM_128_HMAC_SHA1_80 {KEY}", "strong"),
        ("RTP/SAVPF", f"a=crypto:1 AEAD_AES_256_GCM {KEY}", "strong"),
        ("RTP/SAVP", f"a=crypto:1 AES_CM_128_HMAC_SHA1_32 {KEY}", "weak"),
        ("RTP/SAVP", f"a=crypto:1 NULL_HMAC_SHA1_80 {KEY}", "weak"),
        ("RTP/SAVP", f"a=crypto:1 AES_CM_128_HMAC_SHA1_80 {KEY} UNENCRYPTED_SRTP", "weak"),
        ("RTP/SAVP", f"a=crypto:1 AES_CM_128_HMAC_SHA1_80 {KEY} UNAUTHENTICATED_SRTP", "weak"),
        ("RTP/SAVP", "a=fingerprint:sha-256 AA", "weak"),
    ],
)
def test_encryption(profile: str, crypto: str, encryption: str) -> None:
    assert offered(f"m=audio 4000 {profile} 0", crypto).encryption == encryption


def test_the_first_audio_of_ours_counts() -> None:
    lines = ("m=video 4000 RTP/AVP 96", "m=audio 0 RTP/AVP 18", "m=audio 9 UDP/TLS/RTP/SAVPF 0", "m=audio 5 RTP/AVP 8")
    assert offered(*lines).codecs == ("PCMA",)


def test_ipv6() -> None:
    assert offered("m=audio 4000 RTP/AVP 0", "c=IN IP6 2001:db8::1").is_ipv6


@pytest.mark.parametrize("text", ["", "v=0", "m=audio x RTP/AVP 0", "m=audio 1 RTP/AVP", "m=image 1 udptl t38\n" * 600])
def test_no_audio(text: str) -> None:
    assert not sdp.offered(text).codecs
    assert sdp.offered(text).fault


@pytest.mark.parametrize(
    ("lines", "is_readable", "fault"),
    [
        (("m=video 4000 RTP/AVP 96",), True, "no_audio"),
        (("m=audio 9 UDP/TLS/RTP/SAVPF 0",), True, "dtls"),
        (("m=audio 4000 RTP/AVP 0", "c=IN IP4 media.example.com"), False, "host_name"),
        (("m=audio 4000 RTP/AVP 0", "m=application x"), False, "unreadable"),
    ],
)
def test_why_no_audio_can_be_taken(lines: tuple[str, ...], is_readable: bool, fault: str) -> None:
    assert sdp.offered(HEAD + "\r\n".join(lines), is_readable=is_readable).fault == fault


@given(
    st.text()
    | st.lists(st.sampled_from(["m=audio 1 RTP/SAVP 0 8", "a=crypto:1", "a=rtpmap:0 ", KEY, "\n"])).map("".join)
)
def test_any_text_is_read(text: str) -> None:
    assert sdp.offered(text).encryption in ("none", "optional", "weak", "strong")

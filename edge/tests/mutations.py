"""Valid SIP messages made wrong in one place or in several, the same ones for the same seed."""

import random
from collections.abc import Iterator

_SDP = (
    "v=0\r\no=- 1 1 IN IP4 {host}\r\ns=-\r\nc=IN IP4 {host}\r\nt=0 0\r\nm=audio {port} RTP/AVP 0 8 101\r\n"
    "a=rtpmap:0 PCMU/8000\r\na=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-15\r\na=sendrecv\r\na=ptime:20\r\n"
)
_WILD = (
    *(b"\x00", b"\xff\xfe", b"\xc3\x28", b"%s%n%p", b"\r\n", b"\r\n\r\n", b" " * 300, b"A" * 3000, b"-1", b"0"),
    *(b"4294967296", b"99999999999999999999", b'"', b"<", b">;", b",", b"=", b"@", b"::", b"[", b"$(ru)", b"'`\\"),
    *(
        b"sip:",
        b"tel:+1",
        b"IN IP6 ::1",
        b"m=audio 0 RTP/SAVP 0\r\n",
        b"a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:x\r\n",
    ),
    *(b"{", b'"}', b"z9hG4bK", b"Content-Length: 5\r\n", b"Via: SIP/2.0/UDP x\r\n", b"\t"),
)


def request(
    method: str, number: str, address: tuple[str, int], *, unique: str, extra: str = "", body: str | None = None
) -> bytes:
    """Return a request as a carrier at `address` would send it; `extra` are header lines, each with its CRLF."""
    host, port = address
    content = _SDP.format(host=host, port=port + 2) if body is None else body
    return (
        f"{method} sip:{number}@edge.example SIP/2.0\r\nVia: SIP/2.0/UDP {host}:{port};branch=z9hG4bK{unique};rport\r\n"
        f'Max-Forwards: 70\r\nFrom: "Caller" <sip:+13038921234@{host}>;tag={unique}\r\n'
        f"To: <sip:{number}@edge.example>\r\n"
        f"Call-ID: {unique}@{host}\r\nCSeq: 1 {method}\r\nContact: <sip:carrier@{host}:{port}>\r\n{extra}"
        f"Content-Type: application/sdp\r\nContent-Length: {len(content)}\r\n\r\n{content}"
    ).encode()


def mutated(seed: int, count: int, number: str, address: tuple[str, int]) -> Iterator[bytes]:
    """Yield so many wrong messages: two thirds INVITEs, half of the changes within the session description."""
    chance = random.Random(seed)
    for n in range(count):
        method = chance.choice(("INVITE", "INVITE", "INVITE", "INVITE", "BYE", "OPTIONS"))
        data = request(method, number, address, unique=f"fuzz{seed}x{n}")
        for _ in range(chance.choice((1, 1, 2, 4))):
            data = _changed(chance, data)
        yield data[:60000]


def _changed(chance: random.Random, data: bytes) -> bytes:
    body = max(data.find(b"\r\n\r\n"), 0)
    first = body if chance.random() < 0.5 else 0
    at = chance.randrange(first, len(data)) if first < len(data) else 0
    match chance.randrange(5):
        case 0:
            return data[:at] + chance.choice(_WILD) + data[at:]
        case 1:
            return data[:at] + data[at + chance.randrange(1, 40) :]
        case 2:
            return data[:at] + chance.randbytes(chance.randrange(1, 4)) + data[at + 1 :]
        case 3:
            lines = data.split(b"\r\n")
            lines.insert(chance.randrange(len(lines)), chance.choice(lines))
            return b"\r\n".join(lines)
        case _:
            lines = data.split(b"\r\n")
            del lines[chance.randrange(len(lines))]
            return b"\r\n".join(lines)

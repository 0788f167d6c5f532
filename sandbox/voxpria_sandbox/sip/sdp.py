"""Session descriptions (RFC 8866) and offer/answer (RFC 3264): one stream of audio, telephone events beside it.

Encrypted (SRTP with SDES, RFC 4568) where the offer is, or offers it beside plain RTP (RFC 8643).
"""

import base64
import ipaddress
import re
import secrets
from dataclasses import dataclass, field
from typing import Literal

from voxpria_sip.uri import MalformedError

from voxpria_sandbox.media.codecs import CODECS, Name

Direction = Literal["sendrecv", "sendonly", "recvonly", "inactive"]
EVENT_PAYLOAD_TYPE = 101
_CLOCK_RATES: dict[str, int] = {name: codec.clock_rate_hz for name, codec in CODECS.items()}

SUITE = "AES_CM_128_HMAC_SHA1_80"
SECRET_BYTES = 30
"""Key and salt of the suite (RFC 4568 section 6.2)."""

_MAX_LINES = 500
_CRYPTO = re.compile(rf"a=crypto:(\d{{1,9}}) {SUITE} inline:([A-Za-z0-9+/]{{40}})(?:\|\S{{1,40}})?")
_MEDIA = re.compile(r"(\w{1,16}) (\d{1,5})(?:/\d+)? ([A-Z/0-9]{1,32})((?: [^\s]{1,16}){0,64})")
_RTPMAP = re.compile(r"rtpmap:(\d{1,3}) ([\w.-]{1,32})/(\d{1,6})(?:/\d+)?")
_DIRECTIONS: tuple[Direction, ...] = ("sendrecv", "sendonly", "recvonly", "inactive")
_MIRRORED: dict[Direction, Direction] = {
    "sendrecv": "sendrecv",
    "sendonly": "recvonly",
    "recvonly": "sendonly",
    "inactive": "inactive",
}


class UnacceptableError(Exception):
    """Well formed, but nothing in it that we speak (SIP 488)."""


@dataclass(frozen=True)
class Key:
    """What one side encrypts with: the suite's tag in the offer, and key and salt."""

    tag: int
    secret: bytes = field(repr=False)


@dataclass(frozen=True)
class Audio:
    """What one side says of its audio stream."""

    address: str
    port: int
    codecs: tuple[Name, ...]
    """Those that we speak, the preferred first."""
    payload_types: tuple[int, ...]
    """What that side calls each of them."""
    event_payload_type: int | None
    """Payload type of telephone events (RFC 4733), if offered."""
    direction: Direction = "sendrecv"
    key: Key | None = None
    """What that side's media is encrypted with, if it is."""
    position: int = 0
    """Which of the media this is."""
    media: tuple[str, ...] = ()
    """Every media line's start, `audio 49170 RTP/AVP 0`, to refuse the others in place."""

    @property
    def is_held(self) -> bool:
        """Whether the peer wants to hear nothing."""
        return self.direction in ("sendonly", "inactive") or self.address == "0.0.0.0"  # noqa: S104


def parse(body: bytes) -> Audio:
    """Return the first audio stream that we can speak; raise MalformedError or UnacceptableError."""
    try:
        lines = body.decode().splitlines()
    except UnicodeDecodeError as error:
        raise MalformedError("the session description is not UTF-8") from error
    if not lines or lines[0] != "v=0" or len(lines) > _MAX_LINES:
        raise MalformedError("not a session description")
    session, media = _sections(lines)
    starts = tuple(section[0][2:] for section in media)
    for position, section in enumerate(media):
        audio = _audio(session, section, position, starts)
        if audio is not None:
            return audio
    raise UnacceptableError(f"no audio with a codec of ours, in clear or with {SUITE}")


def _sections(lines: list[str]) -> tuple[list[str], list[list[str]]]:
    session: list[str] = []
    media: list[list[str]] = []
    for line in lines:
        if line.startswith("m="):
            media.append([line])
        elif media:
            media[-1].append(line)
        else:
            session.append(line)
    return session, media


def _audio(session: list[str], section: list[str], position: int, starts: tuple[str, ...]) -> Audio | None:
    found = _MEDIA.fullmatch(section[0][2:].strip())
    if found is None:
        raise MalformedError("malformed media line")
    kind, port, profile, formats = found[1], int(found[2]), found[3], found[4].split()
    key = _key(section)
    if kind != "audio" or port == 0 or not (profile == "RTP/AVP" or (profile == "RTP/SAVP" and key)):
        return None
    if port > 65535:
        raise MalformedError("no such port")
    names = _names(section)
    ours = [(codec, int(text)) for text in formats for codec in CODECS if names.get(text) == codec]
    events = next((int(text) for text in formats if names.get(text) == "TELEPHONE-EVENT"), None)
    if not ours:
        return None
    codecs, types = tuple(codec for codec, _ in ours), tuple(kind for _, kind in ours)
    direction = _direction(session, section)
    return Audio(_address(session, section), port, codecs, types, events, direction, key, position, starts)


def _key(section: list[str]) -> Key | None:
    found = next((found for line in section if (found := _CRYPTO.fullmatch(line.strip()))), None)
    return Key(int(found[1]), base64.b64decode(found[2])) if found else None


def _names(section: list[str]) -> dict[str, str]:
    """Return what each payload type means; 0, 8 and 9 are known without saying (RFC 3551)."""
    names = {"0": "PCMU", "8": "PCMA", "9": "G722"}
    for line in section:
        found = _RTPMAP.fullmatch(line[2:].strip()) if line.startswith("a=") else None
        if found:
            name = found[2].upper()
            names[found[1]] = name if int(found[3]) == _CLOCK_RATES.get(name, 8000) else "other"
    return names


def _address(session: list[str], section: list[str]) -> str:
    line = next((line for line in [*section, *session] if line.startswith("c=")), None)
    words = line[2:].split() if line else []
    if len(words) != 3 or words[:2] not in (["IN", "IP4"], ["IN", "IP6"]):
        raise MalformedError("no connection address")
    try:
        return str(ipaddress.ip_address(words[2]))
    except ValueError as error:
        raise UnacceptableError("the connection address is not an IP address") from error


def _direction(session: list[str], section: list[str]) -> Direction:
    for line in [*section, *session]:
        for direction in _DIRECTIONS:
            if line.strip() == f"a={direction}":
                return direction
    return "sendrecv"


class Session:
    """Our side of one session: its id stays, its version rises with every description (RFC 3264 section 8)."""

    def __init__(self, address: str, port: int) -> None:
        self._address, self._port = address, port
        self._id, self._version = secrets.randbits(32), 0
        self.secret = secrets.token_bytes(SECRET_BYTES)
        """What our media is encrypted with, where it is."""

    def offer(self) -> bytes:
        """Return an offer of both G.711 and telephone events."""
        codecs: list[tuple[Name, int]] = [("PCMU", 0), ("PCMA", 8)]
        return self._write(_media_lines(self._port, codecs, EVENT_PAYLOAD_TYPE, "sendrecv"))

    def answer(self, offered: Audio) -> bytes:
        """Return the answer: the offer's first codec that we speak, its other media refused in place."""
        lines: list[str] = []
        for position, start in enumerate(offered.media):
            if position == offered.position:
                direction = _MIRRORED[offered.direction]
                profile = start.split()[2]
                chosen = [(offered.codecs[0], offered.payload_types[0])]
                lines += _media_lines(self._port, chosen, offered.event_payload_type, direction, profile)
                if offered.key is not None:
                    key = base64.b64encode(self.secret).decode()
                    lines.append(f"a=crypto:{offered.key.tag} {SUITE} inline:{key}")
            else:
                kind, _, *rest = start.split()
                lines.append(f"m={kind} 0 {' '.join(rest)}")
        return self._write(lines)

    def _write(self, media: list[str]) -> bytes:
        self._version += 1
        network = f"IN {'IP6' if ':' in self._address else 'IP4'} {self._address}"
        origin = f"o=voxpria-sandbox {self._id} {self._version} {network}"
        return ("\r\n".join(["v=0", origin, "s=-", f"c={network}", "t=0 0", *media]) + "\r\n").encode()


def _media_lines(
    port: int, codecs: list[tuple[Name, int]], events: int | None, direction: Direction, profile: str = "RTP/AVP"
) -> list[str]:
    types = [kind for _, kind in codecs]
    lines = [f"a=rtpmap:{kind} {CODECS[codec].rtpmap}" for codec, kind in codecs]
    if events is not None:
        types.append(events)
        lines += [f"a=rtpmap:{events} telephone-event/8000", f"a=fmtp:{events} 0-15"]
    return [f"m=audio {port} {profile} {' '.join(map(str, types))}", *lines, "a=ptime:20", f"a={direction}"]

"""What stands in a session description (RFC 8866), as far as a decision needs it. Hostile input: bounded, no error."""

import itertools
import re

from voxpria_routing.media import Encryption, Fault, Offered

_MOST_LINES = 500
_MEDIA = re.compile(r"m=audio (\d{1,5})(?:/\d+)? ([A-Z/]{1,32})((?: \d{1,3}){1,64})")
_DTLS = re.compile(r"m=audio [1-9]\d{0,4} (UDP|TCP)/(DTLS|TLS/RTP)/")
_HOST_NAME = re.compile(r"c=IN IP4 .*[^0-9./ ]|c=IN IP6 .*[^0-9A-Fa-f:./ ]")
_RTPMAP = re.compile(r"a=rtpmap:(\d{1,3}) ([\w.-]{1,32})/\d{1,6}")
_CRYPTO = re.compile(r"a=crypto:\d{1,9} (\S{1,64}) inline:\S{1,256}(.*)")
_STATIC = {"0": "PCMU", "3": "GSM", "4": "G723", "8": "PCMA", "9": "G722", "18": "G729"}
"""RFC 3551 section 6: what a payload type means without being told."""
STRONG_SUITES = frozenset(
    {
        "AES_CM_128_HMAC_SHA1_80",
        "AES_256_CM_HMAC_SHA1_80",
        "AEAD_AES_128_GCM",
        "AEAD_AES_256_GCM",
    }
)
_NO_CODECS = frozenset({"TELEPHONE-EVENT", "CN"})


def offered(body: str, *, is_readable: bool = True) -> Offered:
    """Return the first audio stream of a session description; with a `fault` if there is none that can be taken.

    `is_readable` is False where Kamailio or rtpengine can't read it, whatever is found here.
    """
    lines = [line.strip() for line in body.splitlines()]
    if not is_readable:
        return _faulty("host_name" if any(map(_HOST_NAME.match, lines)) else "unreadable")
    if len(lines) > _MOST_LINES:
        return _faulty("unreadable")
    starts = [i for i, line in enumerate(lines) if line.startswith("m=")]
    for start, end in itertools.pairwise([*starts, len(lines)]):
        found = _MEDIA.fullmatch(lines[start])
        if found is not None and found[1] != "0":
            section = lines[start:end]
            encryption = _encryption(found[2], section)
            if encryption is None:
                continue
            is_ipv6 = any(line.startswith("c=IN IP6 ") for line in [*section, *lines[: starts[0]]])
            return Offered(codecs=_codecs(found[3].split(), section), encryption=encryption, is_ipv6=is_ipv6)
    return _faulty("dtls" if any(map(_DTLS.match, lines)) else "no_audio")


def _faulty(fault: Fault) -> Offered:
    return Offered(codecs=(), encryption="none", fault=fault)


def is_encrypted(body: str) -> bool:
    """Whether its first audio stream is SRTP, with a suite that we take."""
    return offered(body).encryption == "strong"


def _codecs(types: list[str], section: list[str]) -> tuple[str, ...]:
    named = {found[1]: found[2] for line in section if (found := _RTPMAP.match(line))}
    names = (named.get(each) or _STATIC.get(each) for each in types)
    return tuple(dict.fromkeys(name for name in names if name and name.upper() not in _NO_CODECS))


def _encryption(profile: str, section: list[str]) -> Encryption | None:
    """Return what a stream of this profile offers; None for a profile that is not ours."""
    is_strong = any(_is_strong(line) for line in section)
    match profile:
        case "RTP/AVP" | "RTP/AVPF":
            return "optional" if is_strong else "none"
        case "RTP/SAVP" | "RTP/SAVPF":
            return "strong" if is_strong else "weak"
        case _:
            return None


def _is_strong(line: str) -> bool:
    """Session parameters may switch off what the suite promises (RFC 4568 section 6.3)."""
    found = _CRYPTO.fullmatch(line)
    return (
        found is not None
        and found[1].upper() in STRONG_SUITES
        and "UNENCRYPTED_" not in found[2].upper()
        and ("UNAUTHENTICATED_" not in found[2].upper())
    )

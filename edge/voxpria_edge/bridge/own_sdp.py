"""Session descriptions in our own name, where we stand between two sides. Pure."""

import re
from collections.abc import Sequence

_OWN_CODECS = {
    "PCMU": ("0", "PCMU/8000"),
    "PCMA": ("8", "PCMA/8000"),
    "G722": ("9", "G722/8000"),
    "OPUS": ("96", "opus/48000/2"),
}
"""What an offer of ours may name, by payload type and rtpmap; G.711 first, as nothing has to be made of it."""
_PORT, _CONNECTION = re.compile(r"^m=audio \d+ ", re.M), re.compile(r"^c=IN IP[46] [^\r\n]+", re.M)
_PLACES = re.compile(r"^a=(?:rtcp|candidate|crypto):?[^\r\n]*\r?\n", re.M)
_TYPES = re.compile(r"^(m=audio \d+ \S+)((?: \d+)+)", re.M)
_CRYPTO = re.compile(r"^a=crypto:(\d+) [^\r\n]*\r?\n?", re.M)
_DIRECTION = re.compile(r"^a=(sendrecv|sendonly|recvonly|inactive)\r?\n?", re.M)
_REVERSED = {"sendrecv": "sendrecv", "sendonly": "recvonly", "recvonly": "sendonly", "inactive": "inactive"}


def own_offer(address: str, preferred: Sequence[str]) -> str:
    """Return an offer in our own name: what the agent's side prefers, and all else that can be made of it.

    What the callee makes of it, the agent's server is offered; they need not have a codec in common.
    """
    family = "IP6" if ":" in address else "IP4"
    names = dict.fromkeys(name.upper() for name in (*preferred, *_OWN_CODECS) if name.upper() in _OWN_CODECS)
    types = [_OWN_CODECS[name] for name in names]
    lines = [
        *("v=0", f"o=voxpria 1 1 IN {family} {address}", "s=-", f"c=IN {family} {address}", "t=0 0"),
        f"m=audio 9 RTP/AVP {' '.join(kind for kind, _ in types)} 101",
        *(f"a=rtpmap:{kind} {rtpmap}" for kind, rtpmap in types),
        *("a=rtpmap:101 telephone-event/8000", "a=fmtp:101 0-15"),
    ]
    return "\r\n".join(lines) + "\r\n"


def own_answer(address: str, offer: str) -> str:
    """Return an answer in our own name that takes an offer as it is."""
    family = "IP6" if ":" in address else "IP4"
    answer = _PLACES.sub("", offer)
    return _CONNECTION.sub(f"c=IN {family} {address}", _PORT.sub("m=audio 9 ", answer))


def as_answered(offered: str, answer: str) -> str:
    """Return what an offer says of its sender once it is answered: the codecs, and the key, that were chosen."""
    found = _TYPES.search(answer)
    chosen = set(found[2].split()) if found else set()
    tags = set(_CRYPTO.findall(answer))

    def media(offer: re.Match[str]) -> str:
        return offer[1] + "".join(f" {kind}" for kind in offer[2].split() if kind in chosen) if chosen else offer[0]

    narrowed = _TYPES.sub(media, offered, count=1)
    return _CRYPTO.sub(lambda crypto: crypto[0] if crypto[1] in tags else "", narrowed)


def facing(offered: str, answered: str) -> str:
    """Return a description that answers an offer by its direction (RFC 3264 section 6.1): who holds is listened to."""
    found = _DIRECTION.search(offered)
    direction = _REVERSED[found[1]] if found else "sendrecv"
    return _DIRECTION.sub("", answered).rstrip("\r\n") + f"\r\na={direction}\r\n"

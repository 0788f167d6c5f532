"""What rtpengine is told to make of each session description: encryption, codecs and addresses, by trunk policy. Pure.

The flags are those of Kamailio's rtpengine module. Transcoding happens only where an answer chooses a codec that the
other side did not offer.
"""

from collections.abc import Iterable

import msgspec
from voxpria_routing.decision import Dial
from voxpria_routing.media import Offered, asked_of_caller, codecs_of_caller
from voxpria_routing.snapshot import Trunk

_WEAK_SUITES = (
    *("AES_CM_128_HMAC_SHA1_32", "AES_192_CM_HMAC_SHA1_32", "AES_192_CM_HMAC_SHA1_80", "AES_256_CM_HMAC_SHA1_32"),
    *("F8_128_HMAC_SHA1_80", "F8_128_HMAC_SHA1_32", "NULL_HMAC_SHA1_80", "NULL_HMAC_SHA1_32"),
)
_BASE = "replace-origin replace-session-connection trust-address ICE=remove DTLS=off"
_STRONG = " ".join(["SDES-pad", *(f"SDES-no-{suite}" for suite in _WEAK_SUITES)])
"""Padded base64 is what other stacks read."""
_TRANSCODED = {"PCMU": "PCMU", "PCMA": "PCMA", "G722": "G722", "OPUS": "opus"}
"""What rtpengine can make of anything else, by its name in capitals."""
_EVERYWHERE = ("PCMU", "PCMA")
_CAPTURED = "record-call=on"


class Media(msgspec.Struct, frozen=True, kw_only=True):
    """rtpengine's flags for one call."""

    to_agent: str
    """For offers that go to the agent."""
    to_agent_again: str
    """For a second offer, after 488 to the first: every codec, and SRTP alone where it was a choice."""
    to_caller: str
    """For offers that go to the caller."""
    answer: str
    """For answers, either way."""


def media(decision: Dial, target: Trunk, *, is_captured: bool) -> Media:
    """Return the flags for a call to one of the decision's targets."""
    captured = f" {_CAPTURED}" if is_captured else ""
    codecs = _codecs_to_agent(target, decision)
    all_codecs = codecs if target.codecs else _transcode(_TRANSCODED)
    family = _family(is_ipv6=(target.next_hop or target.server).startswith("[") or ":" in target.server)
    return Media(
        to_agent=f"{_BASE} {family} {_encryption_to_agent(target)} {codecs}{captured}",
        to_agent_again=f"{_BASE} {family} {_encryption_to_agent(target, is_again=True)} {all_codecs}{captured}",
        to_caller=f"{_BASE} {_to_caller(decision)}{captured}",
        answer=f"{_BASE} {_STRONG}{captured}",
    )


def spoken_codec(decision: Dial) -> str | None:
    """Return the codec of the caller's that something can be spoken to it in, best one the target takes too."""
    offered = decision.offered.codecs if decision.offered else ()
    allowed = {codec.upper() for codec in _callers(decision)}
    known = [c for c in offered if c.upper() in _TRANSCODED and (not allowed or c.upper() in allowed)]
    preferred = [codec.upper() for codec in decision.target.codecs]
    return min(
        known, key=lambda c: preferred.index(c.upper()) if c.upper() in preferred else len(preferred), default=None
    )


def to_ourselves(decision: Dial, codec: str, *, is_captured: bool) -> str:
    """Return the flags for the caller's offer where we answer it, in plain RTP and this codec."""
    captured = f" {_CAPTURED}" if is_captured else ""
    return f"{_BASE} address-family=IP4 RTP/AVP OSRTP-accept SDES=off {only(decision, codec)}{captured}"


def only(decision: Dial, codec: str) -> str:
    """Return the flags that leave the caller's other codecs out of an offer, as it was answered with this one."""
    offered = decision.offered.codecs if decision.offered else ()
    return " ".join(f"codec-strip-{other}" for other in offered if other.upper() != codec.upper())


def _encryption_to_agent(target: Trunk, *, is_again: bool = False) -> str:
    """`OSRTP=accept` is about what the carrier offered."""
    is_confidential = target.transport == "tls"
    match target.media_encryption:
        case "required":
            return f"RTP/SAVP OSRTP-accept {_STRONG}"
        case "allowed" if is_confidential and is_again:
            return f"RTP/SAVP OSRTP-accept {_STRONG}"
        case "allowed" if is_confidential:
            return f"RTP/AVP OSRTP-accept OSRTP-offer {_STRONG}"
        case _:
            return "RTP/AVP OSRTP-accept SDES=off"


def _to_caller(decision: Dial) -> str:
    """As the caller offered first; a caller that offered nothing yet gets what its trunk's policy says."""
    carrier, offered = decision.carrier, decision.offered
    family = _family(is_ipv6=decision.is_caller_ipv6 if offered is None else offered.is_ipv6)
    if offered is None:
        is_required = asked_of_caller(carrier, is_outbound=decision.is_outbound) == "required"
        encryption = f"RTP/SAVP {_STRONG}" if is_required else "RTP/AVP SDES=off"
        return f"{family} {encryption} {_transcode(_callers(decision) or _EVERYWHERE)}"
    encryption = {
        "strong": f"RTP/SAVP OSRTP-accept {_STRONG}",
        "optional": f"RTP/AVP OSRTP-accept OSRTP-offer {_STRONG}",
    }.get(offered.encryption, "RTP/AVP OSRTP-accept SDES=off")
    return f"{family} {encryption} {_transcode(offered.codecs)}"


def is_captured(decision: Dial) -> bool:
    """Tell whether a trunk that has part in the call wants it recorded."""
    return decision.carrier.is_recorded or any(target.is_recorded for target in decision.targets)


def _callers(decision: Dial) -> tuple[str, ...]:
    return codecs_of_caller(decision.carrier, is_outbound=decision.is_outbound)


def _codecs_to_agent(target: Trunk, decision: Dial) -> str:
    """Offer the target's codecs in its order, if it has a list; else the caller's, and G.711 besides."""
    unwanted = _unwanted(_callers(decision), decision.offered)
    if target.codecs:
        return f"{unwanted} codec-mask-all {_transcode(target.codecs)} codec-transcode-telephone-event".strip()
    return f"{unwanted} {_transcode(_EVERYWHERE)}".strip()


def _unwanted(codecs: tuple[str, ...], offered: Offered | None) -> str:
    """Strip what the carrier offers and its trunk does not take, so that no answer chooses it."""
    if not codecs or offered is None:
        return ""
    wanted = {codec.upper() for codec in codecs}
    return " ".join(f"codec-strip-{codec}" for codec in offered.codecs if codec.upper() not in wanted)


def _transcode(codecs: Iterable[str]) -> str:
    names = (_TRANSCODED.get(codec.upper()) for codec in codecs)
    return " ".join(f"codec-transcode-{name}" for name in names if name)


def _family(*, is_ipv6: bool) -> str:
    return "address-family=IP6" if is_ipv6 else "address-family=IP4"

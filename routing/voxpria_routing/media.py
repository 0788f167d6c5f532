"""What a caller offers to speak, and whether a trunk takes it. Pure."""

from collections.abc import Mapping
from typing import Literal

import msgspec

from voxpria_routing.snapshot import MediaEncryption, Trunk

Fault = Literal["no_audio", "dtls", "host_name", "unreadable"]
"""Why no audio can be taken: there is none; it is over DTLS-SRTP; its address is a name; the text itself is broken."""
Encryption = Literal["none", "optional", "weak", "strong"]
"""What is offered: nothing; SDES beside plain RTP (RFC 8643); SRTP, but without a suite that we take; SRTP."""


class Offered(msgspec.Struct, frozen=True, kw_only=True):
    """The audio in a session description."""

    codecs: tuple[str, ...]
    """Names of RFC 3551 and later (`PCMU`, `G722`, `opus`), the preferred first; telephone events left out."""
    encryption: Encryption
    is_ipv6: bool = False
    fault: Fault | None = None
    """Set where there is no audio that can be taken."""


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """Why an offer is not taken, and what to do about it."""

    summary: str
    mend: str


_PROBLEMS: Mapping[Fault, Problem] = {
    "no_audio": Problem(
        summary="The INVITE's session description offers no audio that can be read.",
        mend="Have the carrier offer one audio stream over RTP/AVP or RTP/SAVP (RFC 8866).",
    ),
    "dtls": Problem(
        summary="The INVITE offers its audio over DTLS-SRTP only, as browsers do.",
        mend="Have the carrier offer RTP/AVP, or RTP/SAVP with SDES (RFC 4568).",
    ),
    "host_name": Problem(
        summary="The INVITE's session description gives a host name for its media, and only IP addresses are taken.",
        mend="Have the carrier send an IP address in the c= line of its session description.",
    ),
    "unreadable": Problem(
        summary="The INVITE's session description can't be read: a line of it is not as RFC 8866 says.",
        mend="Look at it in GET /v1/calls/{id}/trace, and show it to the maker of what sent it.",
    ),
}


def asked_of_caller(trunk: Trunk, *, is_outbound: bool) -> MediaEncryption:
    """Return the encryption that a trunk asks of whoever calls in through it.

    What a provider's trunk requires is about the provider's server: a carrier that may call in through it is another.
    """
    is_free = _is_of_another(trunk, is_outbound=is_outbound) and trunk.media_encryption == "required"
    return "allowed" if is_free else trunk.media_encryption


def codecs_of_caller(trunk: Trunk, *, is_outbound: bool) -> tuple[str, ...]:
    """Return the codecs that a trunk holds whoever calls in through it to; none is all. See `asked_of_caller`."""
    return () if _is_of_another(trunk, is_outbound=is_outbound) else trunk.codecs


def _is_of_another(trunk: Trunk, *, is_outbound: bool) -> bool:
    return trunk.provider != "generic" and not is_outbound


def problem(carrier: Trunk, offered: Offered | None, *, is_outbound: bool = False) -> Problem | None:
    """Return what keeps a carrier's trunk from taking an offer; nothing, where there is no offer yet."""
    if offered is None:
        return None
    if offered.fault is not None or not offered.codecs:
        return _PROBLEMS[offered.fault or "no_audio"]
    asked = asked_of_caller(carrier, is_outbound=is_outbound)
    codecs = codecs_of_caller(carrier, is_outbound=is_outbound)
    return _encryption_problem(carrier, offered, asked) or _codec_problem(carrier, offered, codecs)


def _encryption_problem(carrier: Trunk, offered: Offered, asked: MediaEncryption) -> Problem | None:
    if offered.encryption == "weak":
        return Problem(
            summary="The carrier offers SRTP, but no suite that is strong enough.",
            mend="Have the carrier offer AES_CM_128_HMAC_SHA1_80 or a stronger suite (RFC 4568, RFC 6188, RFC 7714).",
        )
    if asked == "required" and offered.encryption == "none":
        return Problem(
            summary=f"Trunk {carrier.name} requires encrypted media, and the carrier offers none.",
            mend="Switch SRTP (SDES) on at the carrier, or set the trunk's config.media_encryption to allowed.",
        )
    if asked == "disabled" and offered.encryption == "strong":
        return Problem(
            summary=f"Trunk {carrier.name} has media encryption disabled, and the carrier offers nothing else.",
            mend="Set the trunk's config.media_encryption to allowed, or switch SRTP off at the carrier.",
        )
    return None


def _codec_problem(carrier: Trunk, offered: Offered, codecs: tuple[str, ...]) -> Problem | None:
    wanted = {codec.upper() for codec in codecs}
    if not wanted or wanted & {codec.upper() for codec in offered.codecs}:
        return None
    theirs, ours = ", ".join(offered.codecs), ", ".join(codecs)
    return Problem(
        summary=f"The carrier offers {theirs}; trunk {carrier.name} takes {ours}.",
        mend="Add one of the carrier's codecs to the trunk's config.codecs, or have the carrier offer one of these.",
    )

"""SRTP (RFC 3711) by libsrtp, in the one suite that we speak: `sdp.SUITE`."""

import pylibsrtp
from voxpria_sip.uri import MalformedError

_PROFILE = pylibsrtp.Policy.SRTP_PROFILE_AES128_CM_SHA1_80


def outbound(secret: bytes) -> pylibsrtp.Session:
    """Return what encrypts our packets."""
    kind = pylibsrtp.Policy.SSRC_ANY_OUTBOUND
    return pylibsrtp.Session(pylibsrtp.Policy(key=secret, ssrc_type=kind, srtp_profile=_PROFILE))


def inbound(secret: bytes) -> pylibsrtp.Session:
    """Return what decrypts the peer's packets."""
    kind = pylibsrtp.Policy.SSRC_ANY_INBOUND
    return pylibsrtp.Session(pylibsrtp.Policy(key=secret, ssrc_type=kind, srtp_profile=_PROFILE))


def opened(session: pylibsrtp.Session | None, data: bytes) -> bytes:
    """Return an RTP packet in clear; raise MalformedError for one that does not prove itself."""
    try:
        return data if session is None else session.unprotect(data)
    except pylibsrtp.Error as error:
        raise MalformedError(f"SRTP: {error}") from error


def opened_rtcp(session: pylibsrtp.Session | None, data: bytes) -> bytes:
    """Return an RTCP packet in clear; raise MalformedError."""
    try:
        return data if session is None else session.unprotect_rtcp(data)
    except pylibsrtp.Error as error:
        raise MalformedError(f"SRTCP: {error}") from error

"""Examines a trunk's server step by step, as a call would go: name, connection, certificate, OPTIONS, digest, codecs.

Each step says what was seen and, where it failed, how to mend it. A step that a failure before it makes pointless is
skipped. Nobody's address inside is gone to: `sip.place_of` sees to that, here as everywhere.
"""

import asyncio
import ipaddress
import re
import ssl
import time
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import dns.asyncresolver
import dns.exception
import dns.rdatatype
from cryptography import x509
from voxpria_routing.hosts import has_service, host_port
from voxpria_routing.locate import SERVICES, ResolutionError

from voxpria_server.providers import sip
from voxpria_server.webhooks.guard import ForbiddenAddressError

Name = Literal["dns", "tcp", "tls", "options", "digest", "codecs", "register"]
_STEP_SECONDS = 3.0
_MAX_RECORDS = 8
_OUT_OF_SERVICE = {408, 500, 502, 503, 504}
"""Answers to OPTIONS of a server that takes no calls; what else it answers, it is there."""
_EXPIRES_SOON_DAYS = 14
_RTPMAP = re.compile(r"^a=rtpmap:\d{1,3} ([A-Za-z0-9-]{1,32})/", re.M)
_OFFERS = {"SIP+D2U": "udp", "SIP+D2T": "tcp", "SIPS+D2T": "tls"}
_STATIC_PAYLOADS = {"0": "PCMU", "8": "PCMA", "9": "G722"}


@dataclass(frozen=True)
class Step:
    """One step: what was seen, and how to mend it if it failed."""

    name: Name
    status: Literal["ok", "failed", "skipped"]
    detail: str
    mend: str | None = None
    duration_ms: float = 0.0


@dataclass(frozen=True)
class Examination:
    """What is to be examined."""

    server: sip.Server
    answers_options: bool
    """Whether the server is known to answer OPTIONS (RFC 3261 section 11)."""
    codecs: Sequence[str]
    """The codecs that calls may use; empty: whatever we can."""


async def examine(wanted: Examination) -> list[Step]:
    """Take every step. Never raises for what the other side does or fails to do; each step ends within 3 s or so."""
    dns_step = await _timed(_dns(wanted.server))
    if dns_step.status == "failed":
        return [dns_step, *_skipped("tcp", "tls", "options", "digest", "codecs", why="the server was not found")]
    tcp_step = await _timed(_tcp(wanted.server))
    if tcp_step.status == "failed":
        return [dns_step, tcp_step, *_skipped("tls", "options", "digest", "codecs", why="there is no connection")]
    tls_step = await _timed(_tls(wanted.server))
    so_far = [dns_step, tcp_step, tls_step]
    if tls_step.status == "failed":
        return [*so_far, *_skipped("options", "digest", "codecs", why="the TLS connection does not hold")]
    return [*so_far, *await _conversation(wanted)]


def verdict_of(steps: Sequence[Step]) -> sip.Verdict:
    """Return what the steps mean for the trunk's health."""
    failed = next((step for step in steps if step.status == "failed" and step.name != "register"), None)
    answered = (step.duration_ms for step in steps if step.name in {"options", "tcp"} and step.status == "ok")
    latency = next(answered, None)
    if failed is None:
        asked = next(step for step in steps if step.name == "options")
        detail = asked.detail if asked.status == "ok" else "takes connections; its credentials show at the first call"
        return sip.Verdict("reachable", detail, latency)
    if failed.name == "codecs":
        return sip.Verdict("reachable", failed.detail, latency)
    return sip.Verdict("auth_failed" if failed.name == "digest" else "unreachable", failed.detail, latency)


def barred(why: str) -> list[Step]:
    """Return the steps for a server that may not be gone to at all."""
    mend = "In test mode use sip.test.voxpria.com or a provider's own host; use a live key for any other server."
    return [Step("dns", "failed", why, mend), *_skipped("tcp", "tls", "options", "digest", "codecs", why=why)]


async def _timed(step: Awaitable[Step]) -> Step:
    started_at = time.perf_counter()
    done = await step
    took = round((time.perf_counter() - started_at) * 1000, 1)
    return Step(done.name, done.status, done.detail, done.mend, 0.0 if done.status == "skipped" else took)


def _skipped(*names: Name, why: str) -> list[Step]:
    return [Step(name, "skipped", why) for name in names]


async def _dns(server: sip.Server) -> Step:
    if server.next_hop is not None:
        return Step("dns", "skipped", f"in test mode {server.host} means the sandbox at {server.next_hop[0]}")
    try:
        place = await sip.place_of(server)
    except ForbiddenAddressError as error:
        mend = "Use a server with a public address, or have the operator set VOXPRIA_ALLOW_PRIVATE_TRUNKS."
        return Step("dns", "failed", str(error), mend)
    except ResolutionError as error:
        services = await _services(server)
        return Step(
            "dns", "failed", sip.explain(error) + (f"; it has {services}" if services else ""), _lost(server, services)
        )
    if _is_address(server.host):
        return Step("dns", "ok", f"{server.host} is an address, nothing to look up")
    named = ", ".join(address for address, _ in place.addresses)
    if place.service is not None:
        targets = ", ".join(host_port(*target) for target in place.targets[:_MAX_RECORDS])
        found = f"{server.host} is found by SRV records {place.service}: {targets} ({named})"
        return Step("dns", "ok", found + await _not_offered(server))
    services = await _services(server)
    return Step(
        "dns",
        "ok",
        f"{server.host} is {named}"
        + (f"; it has {services} too, not used here" if services else "")
        + await _not_offered(server),
    )


async def _not_offered(server: sip.Server) -> str:
    """Say that the name's NAPTR records offer other transports than the trunk's (RFC 3263 section 4.1), if so.

    They choose none here, but calls may not be welcome over one that is not among them.
    """
    if not has_service(server.host, server.port, server.transport):
        return ""
    records = await _answered(server.host, dns.rdatatype.NAPTR)
    services = [record.service.decode("ascii", "replace").upper() for record in records]
    offered = dict.fromkeys(_OFFERS[service] for service in services if service in _OFFERS)
    if not offered or server.transport in offered:
        return ""
    return f"; its NAPTR records offer {', '.join(offered)} and not {server.transport}, which config.transport says"


def _lost(server: sip.Server, services: str) -> str:
    """Return how to mend that a server's name led nowhere (RFC 3263 section 4.2)."""
    if not services:
        return "Check the spelling of config.server, and that the name is in public DNS."
    if SERVICES[server.transport] in services and has_service(server.host, server.port, server.transport):
        return "Have the targets of its SRV records given addresses, or put one that has one into config.server."
    return (
        "SRV records are used where config.port is that of the transport (5060, with tls 5061), and only those of"
        " config.transport: set both to what the records serve."
    )


async def _services(server: sip.Server) -> str:
    """Return the name's NAPTR and SRV records in words (RFC 3263 section 4.1); empty if it has none."""
    asked = [
        (server.host, dns.rdatatype.NAPTR),
        *((f"{service}.{server.host}", dns.rdatatype.SRV) for service in SERVICES.values()),
    ]
    found = await asyncio.gather(*(_records(name, kind) for name, kind in asked))
    return "; ".join(text for texts in found for text in texts)


async def _records(name: str, kind: dns.rdatatype.RdataType) -> list[str]:
    return [f"{kind.name} {name} {record.to_text()}"[:200] for record in await _answered(name, kind)]


async def _answered(name: str, kind: dns.rdatatype.RdataType) -> list[Any]:
    """Return the records of one kind that a name has, at most 8; none if that can't be found out."""
    with suppress(dns.exception.DNSException, OSError, UnicodeError):
        return list(await dns.asyncresolver.resolve(name, kind, lifetime=_STEP_SECONDS, search=False))[:_MAX_RECORDS]
    return []


async def _tcp(server: sip.Server) -> Step:
    if server.transport == "udp":
        return Step("tcp", "skipped", "UDP knows no connection")
    try:
        async with asyncio.timeout(_STEP_SECONDS):
            _, writer = await sip.connect(server, None)
    except (OSError, TimeoutError) as error:
        mend = f"Check that the server listens on port {await _ports(server)} and that its firewall lets us in."
        return Step("tcp", "failed", _reason(error), mend)
    peer = writer.get_extra_info("peername")
    writer.transport.abort()
    return Step("tcp", "ok", f"connected to {peer[0]} port {peer[1]}")


async def _ports(server: sip.Server) -> str:
    """Return the ports that the server was sought at: SRV records name their own."""
    with suppress(OSError):
        return ", ".join(dict.fromkeys(str(port) for _, port in (await sip.place_of(server)).addresses))
    return str(server.port)


async def _tls(server: sip.Server) -> Step:
    if server.transport != "tls":
        return Step("tls", "skipped", f"the transport is {server.transport}")
    try:
        certificate, version = await _handshake(
            server, sip.tls_context(is_verified=server.is_tls_verified, authority=server.authority)
        )
    except ssl.SSLCertVerificationError as error:
        return await _bad_certificate(server, error)
    except (OSError, TimeoutError) as error:
        port = await _ports(server)
        mend = (
            f"Check that port {port} is the server's TLS port (5061 as a rule), and that it speaks TLS 1.2 or later"
            " with ECDHE and AES-GCM or ChaCha20."
        )
        return Step("tls", "failed", _reason(error), mend)
    return Step("tls", "ok", f"{version}; {_described(certificate)}")


async def _bad_certificate(server: sip.Server, error: ssl.SSLCertVerificationError) -> Step:
    """Say what is wrong with a certificate, having looked at it."""
    seen = f"the certificate does not hold: {error.verify_message}"
    with suppress(OSError, TimeoutError, ValueError):
        certificate, _ = await _handshake(server, sip.tls_context(is_verified=False))
        seen += f"; {_described(certificate)}"
    return Step("tls", "failed", seen, _mend_of_certificate(server, error.verify_message))


def _mend_of_certificate(server: sip.Server, message: str) -> str:
    text = message.lower()
    if "expired" in text:
        return "Renew the server's certificate."
    if "mismatch" in text or "not valid for" in text:
        return f"Set config.server to a name in the certificate, or have a certificate made for {server.host}."
    if "self" in text or "issuer" in text:
        return "Have the certificate signed by a public authority, and have the server send the whole chain."
    return "Check the server's certificate and chain, as with: openssl s_client -connect host:port -servername host"


async def _handshake(server: sip.Server, context: ssl.SSLContext) -> tuple[x509.Certificate, str]:
    async with asyncio.timeout(_STEP_SECONDS):
        _, writer = await sip.connect(server, context)
    secured: ssl.SSLObject = writer.get_extra_info("ssl_object")
    encoded, version = secured.getpeercert(binary_form=True), secured.version()
    writer.transport.abort()
    return x509.load_der_x509_certificate(encoded or b""), version or "TLS"


def _described(certificate: x509.Certificate) -> str:
    days = (certificate.not_valid_after_utc - datetime.now(UTC)).days
    expiry = f"expires {certificate.not_valid_after_utc:%Y-%m-%d}"
    soon = ", soon: have it renewed" if 0 <= days < _EXPIRES_SOON_DAYS else ""
    return f"certificate for {_names(certificate)}, from {_common_name(certificate.issuer)}, {expiry}{soon}"


def _names(certificate: x509.Certificate) -> str:
    with suppress(x509.ExtensionNotFound, ValueError):
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        found = [*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))]
        if found:
            return ", ".join(found[:_MAX_RECORDS])[:300]
    return _common_name(certificate.subject)


def _common_name(name: x509.Name) -> str:
    return (name.rfc4514_string() or "nobody named")[:200]


async def _conversation(wanted: Examination) -> list[Step]:
    """Ask the server for its options, and judge digest and codecs by the answer."""
    server = wanted.server
    if not wanted.answers_options and server.transport != "udp":
        why = "this provider does not answer OPTIONS; credentials and codecs show at the first call"
        return _skipped("options", "digest", "codecs", why=why)
    started_at = time.perf_counter()
    try:
        async with asyncio.timeout(_STEP_SECONDS):
            answers = await sip.converse(server)
    except (OSError, TimeoutError, sip.MalformedError) as error:
        mend = (
            "Check server, port and transport, that the server lets us in, and that it answers OPTIONS; one that does"
            " not may still take calls."
        )
        options = Step("options", "failed", _reason(error), mend)
        return [options, *_skipped("digest", "codecs", why="OPTIONS was not answered")]
    took = round((time.perf_counter() - started_at) * 1000, 1)
    said = f"answered {answers.first.code} {answers.first.reason}".rstrip()
    if answers.first.code in _OUT_OF_SERVICE:
        mend = "The server is there and says that it takes no calls now: ask whoever runs it, or try again later."
        options = Step("options", "failed", said, mend, took)
        return [options, *_skipped("digest", "codecs", why="the server is out of service")]
    options = Step("options", "ok", said, None, took)
    digest = _digest(server, answers)
    return [options, digest, _codecs(wanted, answers.last, is_known=digest.status != "failed")]


def _digest(server: sip.Server, answers: sip.Answers) -> Step:
    said = f"answered {answers.last.code} {answers.last.reason}".rstrip()
    if answers.is_refused:
        if server.username is None:
            mend = "Set credentials.username and credentials.password, or have the server know us by our address."
            return Step("digest", "failed", f"{said} to a request without credentials", mend)
        if answers.is_challenged and answers.algorithm is None:
            mend = "Have the server take a digest with MD5 or SHA-256, and qop auth if it names any."
            return Step("digest", "failed", f"{said}, with no challenge that we can answer", mend)
        mend = "Check credentials.username and credentials.password with whoever runs the server."
        if not answers.is_challenged:
            mend = "It asked for no credentials: have it take calls from our address, or from these credentials."
        return Step("digest", "failed", f"{said} to these credentials", mend)
    if not answers.is_challenged:
        return Step("digest", "skipped", "the server asks for no credentials")
    return Step("digest", "ok", f"the credentials are taken ({answers.algorithm})")


def _codecs(wanted: Examination, response: sip.Response, *, is_known: bool) -> Step:
    offered = _codecs_in(response.body) if is_known else []
    if not offered:
        return Step("codecs", "skipped", "the server's answer names no codecs; they show at the first call")
    ours = [name for name in offered if not wanted.codecs or name.lower() in map(str.lower, wanted.codecs)]
    if ours:
        return Step("codecs", "ok", f"both know {', '.join(ours)}")
    mend = f"Put one of {', '.join(offered)} into config.codecs."
    return Step(
        "codecs", "failed", f"the server takes {', '.join(offered)}, the trunk {', '.join(wanted.codecs)}", mend
    )


def _codecs_in(body: str) -> list[str]:
    """Return the names of the audio codecs in a session description (RFC 8866), as far as they are codecs."""
    media = re.search(r"^m=audio \d+ \S+((?: \d{1,3}){1,40})", body, re.M)
    if media is None:
        return []
    named = [name for name in _RTPMAP.findall(body) if name.lower() not in {"telephone-event", "cn"}]
    static = [_STATIC_PAYLOADS[payload] for payload in media[1].split() if payload in _STATIC_PAYLOADS]
    return list({name.lower(): name for name in [*static, *named]}.values())[:_MAX_RECORDS]


def _is_address(host: str) -> bool:
    with suppress(ValueError):
        ipaddress.ip_address(host)
        return True
    return False


def _reason(error: Exception) -> str:
    return f"no answer within {_STEP_SECONDS:g} s" if isinstance(error, TimeoutError) else sip.explain(error)

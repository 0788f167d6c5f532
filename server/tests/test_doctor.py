"""The doctor of trunks, against scripted SIP, TLS and DNS servers on real sockets."""

import asyncio
import socket
import ssl
from datetime import UTC, datetime, timedelta

import dns.asyncresolver
import dns.flags
import dns.message
import dns.rrset
import pytest
from voxpria_sandbox import certificates
from voxpria_server.providers import doctor, sip
from voxpria_server.providers.hosts import PROVIDER_HOSTS

from server.tests.test_sip_client import ADDRESS, SipServer, serve_udp

HOST = "sip.test.voxpria.com"
SDP = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
SDP += "m=audio 0 RTP/AVP 8 111 101\r\na=rtpmap:111 opus/48000/2\r\na=rtpmap:101 telephone-event/8000\r\n"


def with_sdp(server: SipServer) -> SipServer:
    """Have the server name its codecs, as RFC 3261 section 11.2 lets it."""
    plain = server.answers

    def answers(data: bytes) -> list[bytes]:
        head = b"Content-Type: application/sdp\r\nContent-Length: %d\r\n\r\n" % len(SDP)
        return [answer.replace(b"Content-Length: 0\r\n\r\n", head + SDP.encode()) for answer in plain(data)]

    server.answers = answers
    return server


async def serve_stream(server: SipServer, context=None, address: str = ADDRESS) -> asyncio.Server:
    async def serve(reader, writer):
        try:
            while data := await reader.readuntil(b"\r\n\r\n"):
                writer.writelines(server.answers(data))
        except (asyncio.IncompleteReadError, OSError):
            writer.close()

    return await asyncio.start_server(serve, address, 0, ssl=context)


def port_of(listener: asyncio.Server) -> int:
    return listener.sockets[0].getsockname()[1]


async def examine(port: int, transport="udp", *, codecs=(), answers=True, **changes):
    fields = {"username": "test_user", "password": "test_pass", "next_hop": (ADDRESS, port), "host": HOST} | changes
    server = sip.Server(port=port, transport=transport, **fields)
    steps = await doctor.examine(doctor.Examination(server, answers, codecs))
    assert [step.name for step in steps] == ["dns", "tcp", "tls", "options", "digest", "codecs"]
    assert all(step.mend for step in steps if step.status == "failed")
    return {step.name: step for step in steps}


def statuses(steps) -> list[str]:
    return [step.status for step in steps.values()]


async def test_all_is_well_over_tls_with_digest_and_codecs(tmp_path):
    context = certificates.server_context(tmp_path, ADDRESS)
    listener = await serve_stream(with_sdp(SipServer()), context)
    steps = await examine(port_of(listener), "tls", authority=str(tmp_path / "authority.pem"), is_tls_verified=True)
    assert statuses(steps) == ["skipped", "ok", "ok", "ok", "ok", "ok"], steps
    assert HOST in steps["tls"].detail
    assert "expires" in steps["tls"].detail
    assert "SHA-256" in steps["digest"].detail
    assert steps["codecs"].detail == "both know PCMA, opus"
    listener.close()


async def test_the_sandbox_proves_to_be_every_providers_server(tmp_path):
    context = certificates.server_context(tmp_path, ADDRESS)
    listener = await serve_stream(SipServer(), context)
    for host in PROVIDER_HOSTS:
        steps = await examine(port_of(listener), "tls", host=host, authority=str(tmp_path / "authority.pem"))
        assert steps["tls"].status == "ok", steps["tls"]
    listener.close()


@pytest.mark.parametrize(
    ("host", "is_trusted", "mend"),
    [("sip.other.example", True, "Set config.server"), (HOST, False, "public authority")],
)
async def test_a_certificate_that_does_not_hold(tmp_path, host, is_trusted, mend):
    context = certificates.server_context(tmp_path, ADDRESS)
    listener = await serve_stream(SipServer(), context)
    authority = str(tmp_path / "authority.pem") if is_trusted else None
    steps = await examine(port_of(listener), "tls", host=host, authority=authority)
    assert statuses(steps) == ["skipped", "ok", "failed", "skipped", "skipped", "skipped"]
    assert mend in steps["tls"].mend, steps["tls"]
    assert HOST in steps["tls"].detail
    assert doctor.verdict_of(list(steps.values())).status == "unreachable"
    listener.close()


async def test_a_certificate_that_has_expired(tmp_path, monkeypatch):
    certificates.server_context(tmp_path, ADDRESS)
    (tmp_path / "agent.pem").unlink()
    made_at = datetime.now(UTC) - timedelta(days=400)
    monkeypatch.setattr(certificates, "_now", lambda: made_at)
    listener = await serve_stream(SipServer(), certificates.server_context(tmp_path, ADDRESS))
    steps = await examine(port_of(listener), "tls", authority=str(tmp_path / "authority.pem"))
    assert (steps["tls"].status, steps["tls"].mend) == ("failed", "Renew the server's certificate.")
    assert "expired" in steps["tls"].detail
    listener.close()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("is_old", [True, False])
async def test_a_server_of_old_tls_or_weak_ciphers(tmp_path, is_old):
    context = certificates.server_context(tmp_path, ADDRESS)
    if is_old:
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    else:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers("ECDHE-ECDSA-AES128-SHA")
    listener = await serve_stream(SipServer(), context)
    steps = await examine(port_of(listener), "tls", authority=str(tmp_path / "authority.pem"))
    assert statuses(steps) == ["skipped", "ok", "failed", "skipped", "skipped", "skipped"]
    assert "TLS 1.2 or later with ECDHE" in steps["tls"].mend
    listener.close()


@pytest.mark.parametrize(
    ("answer", "status", "mend"),
    [
        ("503 Service Unavailable", "failed", "takes no calls now"),
        ("500 Server Internal Error", "failed", "takes no calls now"),
        ("404 Not Found", "ok", None),
        ("405 Method Not Allowed", "ok", None),
    ],
)
async def test_what_a_server_answers_to_options(answer, status, mend):
    transport, port = await serve_udp(SipServer(lambda _: [(answer,)]))
    steps = await examine(port)
    assert (steps["options"].status, steps["options"].detail) == (status, f"answered {answer}")
    assert mend is None or mend in steps["options"].mend
    assert steps["digest"].status == "skipped"
    transport.close()


UNKNOWN = 'WWW-Authenticate: Digest realm="r", nonce="n", qop="auth", algorithm=SHA-512-256'


@pytest.mark.parametrize(
    ("answer", "mend"),
    [
        (("401 Unauthorized", UNKNOWN), "MD5 or SHA-256"),
        (("403 Forbidden",), "take calls from our address"),
    ],
)
async def test_refusals_that_no_other_password_would_mend(answer, mend):
    transport, port = await serve_udp(SipServer(lambda _: [answer]))
    steps = await examine(port)
    assert (steps["digest"].status, mend in steps["digest"].mend) == ("failed", True), steps["digest"]
    assert doctor.verdict_of(list(steps.values())).status == "auth_failed"
    transport.close()


async def test_a_port_that_speaks_no_tls():
    listener = await serve_stream(SipServer(lambda _: []))
    steps = await examine(port_of(listener), "tls")
    assert (steps["tls"].status, "5061" in steps["tls"].mend) == ("failed", True)
    listener.close()


@pytest.mark.parametrize(
    ("credentials", "script", "status", "words"),
    [
        ({}, None, "ok", "SHA-256"),
        ({"password": "wrong"}, None, "failed", "to these credentials"),
        ({"username": None, "password": None}, None, "failed", "without credentials"),
        ({}, lambda _: [("200 OK",)], "skipped", "no credentials"),
    ],
)
async def test_digest(credentials, script, status, words):
    transport, port = await serve_udp(SipServer(script))
    steps = await examine(port, **credentials)
    assert (steps["digest"].status, words in steps["digest"].detail) == (status, True), steps["digest"]
    expected = {"ok": "reachable", "skipped": "reachable", "failed": "auth_failed"}[status]
    assert doctor.verdict_of(list(steps.values())).status == expected
    transport.close()


async def test_codecs_that_do_not_meet():
    transport, port = await serve_udp(with_sdp(SipServer()))
    steps = await examine(port, codecs=["G722"])
    assert (steps["codecs"].status, "PCMA, opus" in steps["codecs"].mend) == ("failed", True)
    steps = await examine(port, codecs=["opus"])
    assert steps["codecs"].detail == "both know opus"
    transport.close()


async def test_nothing_listens_there():
    with socket.socket() as closed:
        closed.bind((ADDRESS, 0))
        steps = await examine(closed.getsockname()[1], "tcp")
    assert statuses(steps) == ["skipped", "failed", "skipped", "skipped", "skipped", "skipped"]
    assert "refused" in steps["tcp"].detail


async def test_silence(monkeypatch):
    monkeypatch.setattr(doctor, "_STEP_SECONDS", 0.4)
    transport, port = await serve_udp(SipServer(lambda _: []))
    steps = await examine(port)
    assert (steps["options"].status, steps["options"].detail) == ("failed", "no answer within 0.4 s")
    transport.close()


async def test_a_provider_that_answers_no_options_is_not_called_down():
    listener = await serve_stream(SipServer(lambda _: []))
    steps = await examine(port_of(listener), "tcp", answers=False)
    assert statuses(steps) == ["skipped", "ok", "skipped", "skipped", "skipped", "skipped"]
    assert doctor.verdict_of(list(steps.values())).status == "reachable"
    listener.close()


class DnsServer(asyncio.DatagramProtocol):
    """Answers from a few records."""

    def __init__(self) -> None:
        self.records: list[tuple[str, str, str]] = []

    def connection_made(self, transport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr) -> None:
        response = dns.message.make_response(dns.message.from_wire(data))
        question = response.question[0]
        for name, kind, text in self.records:
            if (question.name.to_text(), dns.rdatatype.to_text(question.rdtype)) == (name, kind):
                response.answer.append(dns.rrset.from_text(name, 60, "IN", kind, text))
        self._transport.sendto(response.to_wire(), addr)


@pytest.fixture
async def names(monkeypatch):
    """A name server that is asked for SRV and NAPTR records; addresses are the machine's to find."""
    transport, server = await asyncio.get_running_loop().create_datagram_endpoint(DnsServer, local_addr=(ADDRESS, 0))
    resolver = dns.asyncresolver.Resolver(configure=False)
    resolver.nameservers, resolver.port = [ADDRESS], transport.get_extra_info("sockname")[1]
    monkeypatch.setattr(dns.asyncresolver, "default_resolver", resolver)
    yield server
    transport.close()


async def test_a_name_with_services_but_no_address_says_where_to_go(names):
    names.records = [
        ("nothing.invalid.", "NAPTR", '10 50 "s" "SIPS+D2T" "" _sips._tcp.nothing.invalid.'),
        ("_sips._tcp.nothing.invalid.", "SRV", "10 60 5061 edge1.invalid."),
    ]
    steps = await examine(5061, "tls", host="nothing.invalid", next_hop=None)
    assert statuses(steps) == ["failed", *["skipped"] * 5]
    assert "edge1.invalid" in steps["dns"].detail
    assert "NAPTR" in steps["dns"].detail
    assert "targets of its SRV records" in steps["dns"].mend
    steps = await examine(5070, "tls", host="nothing.invalid", next_hop=None)
    assert "edge1.invalid" in steps["dns"].detail
    assert "config.port" in steps["dns"].mend


@pytest.mark.parametrize("transport", ["udp", "tcp", "tls"])
async def test_a_server_is_sought_by_its_srv_records_as_calls_seek_it(names, tmp_path, transport):
    server = with_sdp(SipServer())
    fields = {"host": "localhost.localdomain", "next_hop": None, "may_be_private": True}
    if transport == "udp":
        listener, port = await serve_udp(server, "127.0.0.1")
    else:
        context = certificates.server_context(tmp_path, "127.0.0.1") if transport == "tls" else None
        listener = await serve_stream(server, context, "127.0.0.1")
        port = port_of(listener)
        fields["is_tls_verified"] = False
    service = {"udp": "_sip._udp", "tcp": "_sip._tcp", "tls": "_sips._tcp"}[transport]
    other, its_service = ("tcp", "SIP+D2T") if transport == "tls" else ("tls", "SIPS+D2T")
    names.records = [
        (f"{service}.localhost.localdomain.", "SRV", f"10 60 {port} localhost."),
        ("localhost.localdomain.", "NAPTR", f'10 50 "s" "{its_service}" "" elsewhere.localdomain.'),
    ]
    steps = await examine(5061 if transport == "tls" else 5060, transport, **fields)
    assert "failed" not in statuses(steps), steps
    assert f"SRV records {service}.localhost.localdomain: localhost:{port}" in steps["dns"].detail
    assert steps["dns"].detail.endswith(f"offer {other} and not {transport}, which config.transport says")
    assert steps["digest"].status == "ok"
    listener.close()


async def test_the_step_that_fails_names_the_port_of_the_srv_record(names):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        names.records = [("_sip._tcp.nothing.invalid.", "SRV", f"10 60 {port} localhost.")]
        steps = await examine(5060, "tcp", host="nothing.invalid", next_hop=None, may_be_private=True)
    assert steps["tcp"].status == "failed"
    assert f"port {port}" in steps["tcp"].mend
    names.records = [("_sip._tcp.nothing.invalid.", "SRV", "10 60 5060 localhost.")]
    steps = await examine(5060, "tcp", host="nothing.invalid", next_hop=None)
    assert "private" in steps["dns"].detail


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "10.0.0.1", "169.254.169.254", "::ffff:127.0.0.1"])
async def test_inside_is_not_gone_to(host):
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        steps = await examine(listening.getsockname()[1], "tcp", host=host, next_hop=None)
        assert statuses(steps) == ["failed", *["skipped"] * 5]
        assert "private" in steps["dns"].detail
        assert "VOXPRIA_ALLOW_PRIVATE_TRUNKS" in steps["dns"].mend
        listening.settimeout(0.2)
        with pytest.raises(TimeoutError):
            listening.accept()


@pytest.mark.unit
@pytest.mark.parametrize(
    ("body", "codecs"),
    [
        ("", []),
        ("m=audio 0 RTP/AVP 0 8 9", ["PCMU", "PCMA", "G722"]),
        ("m=video 0 RTP/AVP 0", []),
        (SDP, ["PCMA", "opus"]),
    ],
)
def test_codecs_of_a_session_description(body, codecs):
    assert doctor._codecs_in(body) == codecs


async def test_a_client_of_the_api_sees_the_steps_and_the_health(client, settings):
    body = {"name": "T", "provider": "generic", "config": {"server": HOST}}
    body["credentials"] = {"username": "test_user", "password": "test_pass"}
    trunk_id = (await client.post("/v1/sip/trunks", json=body)).json()["id"]
    transport, _ = await serve_udp(SipServer(), settings.sandbox_address, settings.sip_port)
    answer = await client.post(f"/v1/sip/trunks/{trunk_id}/test")
    assert answer.status_code == 200, answer.text
    found = {step["name"]: step["status"] for step in answer.json()["steps"]}
    assert found == {
        "dns": "skipped",
        "tcp": "skipped",
        "tls": "skipped",
        "options": "ok",
        "digest": "ok",
        "codecs": "skipped",
    }
    assert answer.json()["success"] is True
    assert (await client.get(f"/v1/sip/trunks/{trunk_id}")).json()["health"]["status"] == "reachable"
    transport.close()
    answer = await client.post(f"/v1/sip/trunks/{trunk_id}/test")
    assert answer.json()["success"] is False
    assert (await client.get(f"/v1/sip/trunks/{trunk_id}")).json()["health"]["status"] == "unreachable"
    outside = await client.post("/v1/sip/trunks", json=body | {"name": "O", "config": {"server": "sip.example.com"}})
    answer = (await client.post(f"/v1/sip/trunks/{outside.json()['id']}/test")).json()
    assert "never leaves this machine" in answer["steps"][0]["detail"]
    assert "test_pass" not in str(answer)

"""The SIP client, and what a trunk's create makes of it, against a scripted SIP server on real sockets."""

import asyncio
import hashlib
import re
import socket
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from voxpria_routing import challenges
from voxpria_server.providers import sip

ADDRESS = "127.0.0.2"


class SipServer(asyncio.DatagramProtocol):
    """Answers OPTIONS as the sandbox's agent does: digest, realm the called host, test_user and test_pass."""

    def __init__(self, script=None) -> None:
        self.requests: list[str] = []
        self._script = script or self._with_digest
        self._transport = None

    def connection_made(self, transport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr) -> None:
        for answer in self.answers(data):
            self._transport.sendto(answer, addr)

    def answers(self, data: bytes) -> list[bytes]:
        request = data.decode()
        self.requests.append(request)
        return [_response(request, *answer) for answer in self._script(request)]

    def _with_digest(self, request: str):
        realm = re.match(r"OPTIONS sip:([^:; ]+)", request)[1]
        sent = re.search(r"^Authorization: (.*)\r$", request, re.M)
        if sent is None:
            challenge = f'Digest realm="{realm}", nonce="n0", qop="auth", algorithm=SHA-256, opaque="o"'
            return [("401 Unauthorized", f"WWW-Authenticate: {challenge}")]
        return [("200 OK",) if self._is_right(sent[1], realm) else ("403 Forbidden",)]

    @staticmethod
    def _is_right(header: str, realm: str) -> bool:
        fields = {name: quoted or bare for name, quoted, bare in re.findall(r'(\w+)=(?:"([^"]*)"|([^,\s]+))', header)}

        def h(text: str) -> str:
            return hashlib.sha256(text.encode()).hexdigest()

        ha1, ha2 = h(f"test_user:{realm}:test_pass"), h(f"OPTIONS:{fields['uri']}")
        wanted = h(f"{ha1}:{fields['nonce']}:{fields['nc']}:{fields['cnonce']}:auth:{ha2}")
        return fields["username"] == "test_user" and fields["response"] == wanted and fields["opaque"] == "o"


def _response(request: str, status: str, *headers: str) -> bytes:
    echoed = [line for line in request.split("\r\n") if line.startswith(("Via:", "From:", "To:", "Call-ID:", "CSeq:"))]
    return "\r\n".join([f"SIP/2.0 {status}", *echoed, *headers, "Content-Length: 0", "", ""]).encode()


async def serve_udp(server: SipServer, address: str = ADDRESS, port: int = 0):
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(lambda: server, local_addr=(address, port))
    return transport, transport.get_extra_info("sockname")[1]


async def serve_tcp(server: SipServer, address: str = ADDRESS, port: int = 0):
    async def serve(reader, writer):
        with suppress(asyncio.IncompleteReadError):
            while data := await reader.readuntil(b"\r\n\r\n"):
                writer.writelines(server.answers(data))

    return await asyncio.start_server(serve, address, port)


async def ask(port: int, **changes) -> sip.Verdict:
    fields = {"transport": "udp", "username": "test_user", "password": "test_pass"} | changes
    return await sip.ask_options(sip.Server("sip.test.voxpria.com", 5060, next_hop=(ADDRESS, port), **fields))


@pytest.mark.parametrize(
    ("credentials", "status"),
    [
        ({}, "reachable"),
        ({"password": "wrong"}, "auth_failed"),
        ({"username": None, "password": None}, "auth_failed"),
    ],
)
async def test_digest_over_udp(credentials, status):
    transport, port = await serve_udp(SipServer())
    verdict = await ask(port, **credentials)
    assert (verdict.status, verdict.latency_ms is not None) == (status, True)
    transport.close()


async def test_digest_over_tcp():
    server = SipServer()
    listener = await serve_tcp(server)
    verdict = await ask(listener.sockets[0].getsockname()[1], transport="tcp")
    assert verdict.status == "reachable"
    assert [re.search(r"CSeq: (\d+)", request)[1] for request in server.requests] == ["1", "2"]
    listener.close()


async def test_a_lost_request_is_sent_again():
    server = SipServer(lambda _: [("200 OK",)] if len(server.requests) > 1 else [])
    transport, port = await serve_udp(server)
    assert (await ask(port)).status == "reachable"
    assert len(server.requests) == 2
    transport.close()


async def test_any_final_answer_shows_that_a_server_is_there():
    transport, port = await serve_udp(SipServer(lambda _: [("100 Trying",), ("405 Method Not Allowed",)]))
    verdict = await ask(port)
    assert (verdict.status, verdict.detail) == ("reachable", "answered 405 Method Not Allowed")
    transport.close()


async def test_silence_and_closed_ports_are_unreachable():
    transport, port = await serve_udp(SipServer(lambda _: []))
    server = sip.Server("x", 5060, "udp", next_hop=(ADDRESS, port))
    assert (await sip.ask_options(server, 0.3)).detail == "no answer within 0.3 s"
    transport.close()
    with socket.socket() as closed:
        closed.bind((ADDRESS, 0))
        nobody = sip.Server("x", 5060, "tcp", next_hop=closed.getsockname())
        for asked in (sip.ask_options(nobody), sip.connect_only(nobody)):
            verdict = await asked
            assert (verdict.status, "refused" in verdict.detail) == ("unreachable", True)


async def test_what_is_not_sip_is_unreachable():
    async def serve(_reader, writer):
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    listener = await asyncio.start_server(serve, ADDRESS, 0)
    verdict = await ask(listener.sockets[0].getsockname()[1], transport="tcp")
    assert (verdict.status, verdict.detail) == ("unreachable", "what came back is not SIP")
    listener.close()


@pytest.mark.unit
@given(st.binary(max_size=400) | st.text().map(str.encode) | st.binary().map(lambda tail: b"SIP/2.0 200 OK\r\n" + tail))
def test_any_bytes_are_a_response_or_malformed(data):
    with suppress(sip.MalformedError):
        assert 100 <= sip.parse_response(data).code <= 699


@pytest.mark.unit
@given(st.text(max_size=200))
def test_any_text_is_a_challenge_or_none(text):
    challenge = challenges.parse_challenge("Digest " + text)
    assert challenge is None or challenges.answer(challenge, "OPTIONS", "sip:a", "u", "p").startswith("Digest ")


@pytest.mark.unit
def test_digest_without_qop_as_rfc_2617_counts_it():
    challenge = challenges.parse_challenge(
        'Digest realm="testrealm@host.com", nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093"'
    )
    ha1 = hashlib.md5(b"Mufasa:testrealm@host.com:Circle Of Life").hexdigest()
    ha2 = hashlib.md5(b"GET:/dir/index.html").hexdigest()
    wanted = hashlib.md5(f"{ha1}:dcd98b7102dd2f0e8b11d0f600bfb0c093:{ha2}".encode()).hexdigest()
    assert ha1 == "939e7578ed9e3c518a452acee763bce9"
    answer = challenges.answer(challenge, "GET", "/dir/index.html", "Mufasa", "Circle Of Life")
    assert f'response="{wanted}"' in answer


async def test_the_sandboxs_server_tells_credentials_apart_for_every_provider(client, settings):
    listener = await serve_tcp(SipServer(), settings.sandbox_address, settings.sip_port)
    config = {"server": "sip.test.voxpria.com", "transport": "tcp"}
    for provider in ("generic", "elevenlabs"):
        for password, status in (("wrong", 400), ("test_pass", 201)):
            credentials = {"username": "test_user", "password": password}
            body = {"name": provider, "provider": provider, "config": config, "credentials": credentials}
            assert (await client.post("/v1/sip/trunks", json=body)).status_code == status, provider
    listener.close()


async def test_create_refuses_credentials_that_the_server_refuses(client, settings):
    transport, _ = await serve_udp(SipServer(), settings.sandbox_address, settings.sip_port)
    body = {"name": "T", "provider": "generic", "config": {"server": "SIP.test.voxpria.com"}}
    wrong = {"username": "test_user", "password": "wrong"}
    answer = await client.post("/v1/sip/trunks", json=body | {"credentials": wrong})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_credentials")
    right = {"username": "test_user", "password": "test_pass"}
    answer = await client.post("/v1/sip/trunks", json=body | {"credentials": right})
    assert answer.status_code == 201, answer.text
    path = f"/v1/sip/trunks/{answer.json()['id']}"
    assert (await client.get(path)).json()["health"]["status"] == "reachable"
    answer = await client.patch(path, json={"credentials": {"password": "wrong"}})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_credentials")
    transport.close()
    await client.patch(path, json={"config": {"record": False}})
    assert (await client.get(path)).json()["health"]["status"] == "unreachable"

"""Old TLS and weak ciphers are refused at the edge's own port (RFC 8996, RFC 9325); good ones are taken."""

import contextlib
import socket
import ssl
import threading
from pathlib import Path

import pytest
from routes_of_tests import CARRIER
from running_edge import RunningEdge

_OLD = [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1]
_WEAK = ["aNULL", "eNULL", "3DES", "RC4", "EXPORT", "DES", "MD5", "SEED", "IDEA"]


def client(ciphers: str = "ALL:COMPLEMENTOFALL:@SECLEVEL=0", version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    """A client that takes everything, or one version of TLS alone."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers(ciphers)
    context.minimum_version = version or ssl.TLSVersion.MINIMUM_SUPPORTED
    context.maximum_version = version or ssl.TLSVersion.MAXIMUM_SUPPORTED
    return context


def shaken(context: ssl.SSLContext, to: tuple[str, int]) -> tuple[str | None, str] | None:
    """Return version and cipher of a handshake; None if it is refused."""
    plain = socket.create_connection(to, 10, source_address=(CARRIER, 0))
    with contextlib.suppress(OSError), context.wrap_socket(plain) as secured:
        cipher = secured.cipher()
        return secured.version(), cipher[0] if cipher else ""
    plain.close()
    return None


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tls_of_today_is_taken(edge: RunningEdge, version: ssl.TLSVersion) -> None:
    found = shaken(client("DEFAULT", version), (edge.address, edge.tls_port))
    assert found is not None
    assert found[0] == version.name.replace("_", ".")
    assert "GCM" in found[1] or "CHACHA" in found[1]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("version", _OLD)
def test_old_tls_is_refused(edge: RunningEdge, folder: Path, version: ssl.TLSVersion) -> None:
    context = edge.authority.server_context(folder, "old.test")
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = version
    with socket.create_server(("127.0.0.1", 0)) as listening:
        # a server that takes it shows that our client speaks it
        assert _served(listening, context, client(version=version)), "this OpenSSL speaks no such version"
    assert shaken(client(version=version), (edge.address, edge.tls_port)) is None


def _served(listening: socket.socket, context: ssl.SSLContext, with_: ssl.SSLContext) -> bool:
    def serve() -> None:
        with contextlib.suppress(OSError):
            plain, _ = listening.accept()
            with context.wrap_socket(plain, server_side=True) as secured:
                secured.recv(1)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    found = shaken(with_, listening.getsockname())
    thread.join(10)
    return found is not None


def test_no_weak_cipher_is_taken(edge: RunningEdge) -> None:
    """Each cipher that this OpenSSL knows is tried alone, with TLS 1.2."""
    known = [cipher["name"] for cipher in client().get_ciphers() if cipher["protocol"] != "TLSv1.3"]
    taken = []
    for name in known:
        found = shaken(client(f"{name}:@SECLEVEL=0", ssl.TLSVersion.TLSv1_2), (edge.address, edge.tls_port))
        if found:
            taken.append(name)
    assert taken
    assert not [name for name in taken if not name.startswith("ECDHE-") or not ("GCM" in name or "CHACHA" in name)]

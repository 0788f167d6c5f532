"""Why a trunk's server could not be reached over TLS: asked of the server itself, after a call to it has failed."""

import asyncio
import contextlib
import ssl
from pathlib import Path

import msgspec
from voxpria_routing.tls import CIPHERS

from voxpria_edge.settings import SYSTEM_AUTHORITIES

_SECONDS = 3.0


class TlsServer(msgspec.Struct, frozen=True, kw_only=True):
    """Where a call went over TLS."""

    name: str
    """The host that its certificate must name."""
    host: str
    """Where it was sought."""
    port: int


class Examiner:
    """Tries handshakes as Kamailio does: the system's authorities and the sandbox's, TLS 1.2 and later, SNI."""

    def __init__(self, sandbox_authority: Path) -> None:
        self._sandbox_authority = sandbox_authority

    async def problem(self, server: TlsServer) -> str | None:
        """Return what is wrong with the server's TLS, as a sentence; None when nothing is, or nobody is there."""
        try:
            async with asyncio.timeout(_SECONDS):
                context = await asyncio.to_thread(self._context)
                _, writer = await asyncio.open_connection(
                    server.host, server.port, ssl=context, server_hostname=server.name
                )
        except ssl.SSLCertVerificationError as error:
            return f"The TLS certificate of {server.host}:{server.port} is refused: {error.verify_message}."
        except ssl.SSLError as error:
            return f"{server.host}:{server.port} does not speak TLS 1.2 or later as we do: {_words(error)}."
        except ConnectionResetError:
            return f"{server.host}:{server.port} breaks off the TLS handshake."
        except TimeoutError:
            return f"{server.host}:{server.port} did not finish a TLS handshake within {_SECONDS:.0f} s."
        except OSError:
            return None
        writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            await asyncio.wait_for(writer.wait_closed(), 1)
        return None

    def _context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(CIPHERS)
        context.load_verify_locations(capath=str(SYSTEM_AUTHORITIES))
        if self._sandbox_authority.exists():
            context.load_verify_locations(self._sandbox_authority)
        return context


def _words(error: ssl.SSLError) -> str:
    return (error.reason or "handshake failure").replace("_", " ").lower()

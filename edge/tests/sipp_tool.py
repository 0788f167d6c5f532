"""SIPp, as a carrier or as a trunk's server: one scenario file a behaviour."""

import contextlib
import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from running_edge import until
from voxpria_routing.hosts import host_port

SCENARIOS = Path(__file__).parent / "scenarios"
_SECONDS = 60
_TALK_MS = 200
"""How long a scenario's `<pause/>` is, unless told: a BYE right behind its ACK may overtake it in a proxy."""
_TRANSPORTS = {"u": "udp", "t": "tcp", "l": "tls"}


@dataclass
class Sipp:
    """A running SIPp, and what it saw."""

    process: "subprocess.Popen[bytes]"
    log: Path
    errors: Path

    def wait(self, seconds: float = _SECONDS) -> None:
        """Wait for its end; fail, showing all messages, if its scenario was not followed."""
        code = self.process.wait(seconds)
        assert code == 0, f"SIPp ended with {code}\n{self._read(self.errors)}\n{self.messages}"

    @property
    def messages(self) -> str:
        """Every message sent and received, as it stood on the wire."""
        return self._read(self.log).replace("\r\n", "\n")

    @property
    def received(self) -> list[str]:
        """The messages received, oldest first."""
        return [body for way, body in self._split() if way == "received"]

    @property
    def sent(self) -> list[str]:
        return [body for way, body in self._split() if way == "sent"]

    def final_code(self, cseq: str = "1 INVITE") -> int:
        """Return the code of the first final answer to the request of this CSeq."""
        for message in self.received:
            code = re.match(r"SIP/2\.0 ([2-6]\d\d) ", message)
            if code and header(message, "CSeq") == cseq:
                return int(code[1])
        raise AssertionError(f"no final answer\n{self.messages}")

    @property
    def sip_call_id(self) -> str:
        """The Call-ID of the first message of its own."""
        return header(next(m for m in self.sent + self.received if header(m, "Call-ID")), "Call-ID")

    def _split(self) -> list[tuple[str, str]]:
        parts = re.split(r"^-{20,}[^\n]*\n[^\n]*message (sent|received)[^\n]*\n\n", self.messages, flags=re.M)
        return [(way.strip(), body.strip("\n")) for way, body in zip(parts[1::2], parts[2::2], strict=True)]

    @staticmethod
    def _read(path: Path) -> str:
        return path.read_text(errors="replace") if path.exists() else ""


def header(message: str, name: str) -> str:
    """Return the first value of a header, or nothing."""
    found = re.search(rf"^{re.escape(name)}\s*:\s*(.*?)\s*$", message.partition("\n\n")[0], re.M | re.I)
    return found[1] if found else ""


def body(message: str) -> str:
    """Return what follows the headers."""
    return message.partition("\n\n")[2]


@contextlib.contextmanager
def sipp(
    scenario: str,
    folder: Path,
    *,
    address: str,
    port: int | None = None,
    to: tuple[str, int] | None = None,
    number: str = "",
    transport: str = "u1",
    contact: str | None = None,
    keys: Sequence[tuple[str, str]] = (),
    calls: int = 1,
    extra: Sequence[str] = (),
) -> Iterator[Sipp]:
    """Run `scenarios/<scenario>.xml`: a client if `to` is given, else a server on `address` and `port`.

    `transport` is SIPp's: u1 (UDP), t1 (TCP). `contact` is a server's host, port and parameters, where it is not
    reached directly (Debian's SIPp speaks no TLS, see `tls_front`). On the way out SIPp is ended.
    """
    name = f"{scenario}-{port or 'client'}"
    log, errors = folder / f"{name}.messages", folder / f"{name}.errors"
    command = [
        "sipp",
        *([host_port(*to)] if to else []),
        *("-sf", str(SCENARIOS / f"{scenario}.xml"), "-i", address, "-mi", address, "-t", transport),
        *(["-p", str(port)] if port else []),
        *(["-s", number] if number else []),
        *("-key", "contact", contact or f"{host_port(address, port)};transport={_TRANSPORTS[transport[0]]}"),
        *(word for key, value in keys for word in ("-key", key, value)),
        *("-m", str(calls), "-l", str(calls), "-timeout", f"{_SECONDS}s", "-timeout_error", "-nostdin", "-nd"),
        *("-trace_msg", "-message_file", str(log), "-message_overwrite", "true"),
        *("-trace_err", "-error_file", str(errors), "-error_overwrite", "true"),
        *(() if "-d" in extra else ("-d", str(_TALK_MS))),
        *extra,
    ]
    process = subprocess.Popen(
        command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        if to is None:
            assert port is not None
            until("SIPp listens", lambda: process.poll() is not None or _listens(port, tcp=transport[0] != "u"))
        yield Sipp(process, log, errors)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(10)


def _listens(port: int, *, tcp: bool) -> bool:
    tables = ("tcp", "tcp6") if tcp else ("udp", "udp6")
    lines = [line.split() for table in tables for line in Path("/proc/net", table).read_text().splitlines()[1:]]
    return any(line[1].endswith(f":{port:04X}") and line[3] in ("0A", "07") for line in lines)

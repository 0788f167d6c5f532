"""baresip, as a carrier or as a trunk's server: a SIP client that nobody here wrote, led over its control socket."""

import contextlib
import json
import math
import socket
import struct
import subprocess
import threading
import time
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from running_edge import until

from tests.ports import free_port

_CONFIGURATION = """\
module_path /usr/lib/baresip/modules
module_tmp uuid.so
module_tmp account.so
module g711.so
module g722.so
module srtp.so
module aufile.so
module_app menu.so
module_app ctrl_tcp.so
ctrl_tcp_listen {address}:{control_port}
sip_listen {address}:{port}
net_interface {address}
audio_source aufile,{voice}
{certificate}"""
_ACCOUNT = "<sip:{user}@{address}:{port}{transport}>;regint=0;answermode=auto;audio_codecs={codecs}{encryption}\n"


class Baresip:
    """A running baresip; it answers every call at once, and speaks a tone of 440 Hz."""

    def __init__(
        self,
        folder: Path,
        address: str,
        user: str,
        transport: str = "udp",
        certificate: Path | None = None,
        codecs: str = "pcmu,pcma",
    ) -> None:
        """Over TLS, media is SRTP and nothing else; `certificate` is a file with a certificate and its key."""
        self.transport, self._certificate, self._codecs = transport, certificate, codecs
        self.address, self.port, self.user = address, free_port(), user
        self._control_port = free_port()
        self._folder = folder / f"baresip-{user}"
        self.events: list[dict[str, Any]] = []

    @classmethod
    @contextlib.contextmanager
    def started(
        cls,
        folder: Path,
        address: str,
        user: str,
        transport: str = "udp",
        certificate: Path | None = None,
        codecs: str = "pcmu,pcma",
    ) -> Iterator[Self]:
        """Run it for as long as the block lasts."""
        phone = cls(folder, address, user, transport, certificate, codecs)
        phone._configure()
        with (folder / f"baresip-{user}.log").open("wb") as log:
            command = ["baresip", "-f", str(phone._folder)]
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        try:
            with until("baresip listens", phone._connected) as phone._control:
                threading.Thread(target=phone._listen, daemon=True).start()
                yield phone
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()

    def _configure(self) -> None:
        self._folder.mkdir()
        voice = self._folder / "voice.wav"
        write_tone(voice)
        is_tls = self.transport == "tls"
        values = {
            "address": self.address,
            "port": self.port,
            "control_port": self._control_port,
            "voice": voice,
            "certificate": f"sip_certificate {self._certificate}\n" if self._certificate else "",
            "transport": "" if self.transport == "udp" else f";transport={self.transport}",
            "codecs": self._codecs,
            "encryption": ";mediaenc=srtp-mand" if is_tls else "",
        }
        (self._folder / "config").write_text(_CONFIGURATION.format(**values))
        (self._folder / "accounts").write_text(_ACCOUNT.format(user=self.user, **values))
        (self._folder / "contacts").touch()

    def _connected(self) -> socket.socket | None:
        with contextlib.suppress(OSError):
            return socket.create_connection((self.address, self._control_port), 5)
        return None

    @property
    def listening_port(self) -> int:
        """Where it takes calls: TLS is on the port behind the other transports'."""
        return self.port + 1 if self.transport == "tls" else self.port

    def dial(self, uri: str) -> None:
        """Place a call."""
        self._command("dial", uri)

    def hang_up(self) -> None:
        """End the call, or give it up while it rings."""
        self._command("hangup")

    def wait_for(self, kind: str, seconds: float = 30) -> dict[str, Any]:
        """Wait for an event, e.g. `CALL_ESTABLISHED` or `CALL_CLOSED`, and return it."""
        return until(f"{self.user}: {kind}", lambda: self._seen(kind), seconds)

    def _seen(self, kind: str) -> dict[str, Any] | None:
        return next((event for event in self.events if event.get("type") == kind), None)

    def _command(self, command: str, parameters: str = "") -> None:
        body = json.dumps({"command": command, "params": parameters}).encode()
        self._control.sendall(b"%d:%s," % (len(body), body))

    def _listen(self) -> None:
        with contextlib.suppress(OSError, ValueError), self._control.makefile("rb") as stream:
            self._control.settimeout(None)
            while True:
                length = b""
                while (digit := stream.read(1)) not in (b":", b""):
                    length += digit
                body = stream.read(int(length))
                stream.read(1)
                self.events.append(json.loads(body) | {"seen_at": time.time()})


def write_tone(path: Path) -> None:
    """Write 20 s of 440 Hz."""
    samples = (int(9000 * math.sin(2 * math.pi * 440 * i / 8000)) for i in range(8000 * 20))
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(b"".join(struct.pack("<h", sample) for sample in samples))

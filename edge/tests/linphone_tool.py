"""linphone's console client: a SIP client that nobody here wrote, led by commands on its standard input."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from running_edge import until

from tests.ports import free_port

_CONFIGURATION = """\
[sip]
sip_port={udp}
sip_tcp_port={tcp}
sip_tls_port={tls}
media_encryption={encryption}
media_encryption_mandatory={mandatory}
verify_server_certs=1
verify_server_cn=0
root_ca={authority}
ipv6=0
guess_hostname=0
auto_net_state_mon=0
contact="{user}" <sip:{user}@127.0.0.1>

[rtp]
audio_rtp_port={rtp}

[sound]
echocancellation=0

[net]
download_bw=0
"""


class Linphone:
    """A running linphonec; with `encrypts` it insists on SRTP. It answers calls, and plays and records files."""

    def __init__(self, folder: Path, user: str, authority: Path, *, encrypts: bool) -> None:
        self.user, self.port = user, free_port()
        self._folder, self._authority, self._encrypts = folder / f"linphone-{user}", authority, encrypts

    @classmethod
    @contextlib.contextmanager
    def started(cls, folder: Path, user: str, authority: Path, *, encrypts: bool) -> Iterator[Self]:
        """Run it for as long as the block lasts."""
        phone = cls(folder, user, authority, encrypts=encrypts)
        (phone._folder / ".local" / "share" / "linphone").mkdir(parents=True)
        (phone._folder / "linphonerc").write_text(
            _CONFIGURATION.format(
                udp=phone.port,
                tcp=phone.port,
                tls=free_port(),
                rtp=free_port(),
                user=user,
                authority=authority,
                encryption="srtp" if encrypts else "none",
                mandatory=int(encrypts),
            )
        )
        command = [
            "linphonec",
            "-a",
            "-d",
            "5",
            "-l",
            str(phone._folder / "log"),
            "-c",
            str(phone._folder / "linphonerc"),
        ]
        environment = {**os.environ, "HOME": str(phone._folder), "XDG_RUNTIME_DIR": str(phone._folder)}
        with (phone._folder / "output").open("wb") as output:
            phone._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=output, stderr=output, env=environment
            )
        try:
            until("linphone is ready", lambda: "linphonec>" in phone.output)
            phone.say("soundcard use files")
            yield phone
        finally:
            with contextlib.suppress(OSError):
                phone.say("quit")
            try:
                phone._process.wait(10)
            except subprocess.TimeoutExpired:
                phone._process.kill()
                phone._process.wait(10)

    @property
    def output(self) -> str:
        return (self._folder / "output").read_text(errors="replace")

    @property
    def log(self) -> str:
        return (self._folder / "log").read_text(errors="replace")

    def say(self, command: str) -> None:
        """Give a command."""
        assert self._process.stdin
        self._process.stdin.write(command.encode() + b"\n")
        self._process.stdin.flush()

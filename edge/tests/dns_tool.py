"""A real DNS server (nsd) on loopback, and parts of the edge that ask nobody else."""

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dns.message
import dns.query
from running_edge import until

ADDRESS = f"127.53.{os.getpid() >> 8 & 255}.{os.getpid() & 255}"
"""Of this run of tests alone: port 53 is there once an address."""
ZONE = "carrier.test"
_HEAD = f"""$ORIGIN {ZONE}.
$TTL 1
@ SOA ns hostmaster SERIAL 1 1 1 1
@ NS ns
ns A {ADDRESS}
"""
_CONFIGURATION = """server:
    ip-address: {address}
    port: 53
    username: ""
    chroot: ""
    zonesdir: "{folder}"
    database: ""
    pidfile: "{folder}/nsd.pid"
    xfrdfile: "{folder}/xfrd.state"
    zonelistfile: "{folder}/zone.list"
    xfrdir: "{folder}"
    hide-version: yes
    server-count: 1
remote-control:
    control-enable: no
zone:
    name: "{zone}"
    zonefile: "zone"
"""


@dataclass
class DnsServer:
    """A running name server."""

    folder: Path
    process: "subprocess.Popen[bytes]"
    serial: int = 1

    def publish(self, records: str) -> None:
        """Have these be all records of the zone."""
        self.serial += 1
        (self.folder / "zone").write_text(_HEAD.replace("SERIAL", str(self.serial)) + records)
        self.process.send_signal(1)  # SIGHUP: read the zone anew
        until("the zone is served", lambda: self._served() == self.serial)

    def _served(self) -> int:
        with contextlib.suppress(OSError, dns.exception.DNSException):
            answer = dns.query.udp(dns.message.make_query(ZONE, "SOA"), ADDRESS, timeout=1)
            return int(answer.answer[0][0].serial)
        return 0


@contextlib.contextmanager
def dns_server() -> Iterator[DnsServer]:
    """Serve `carrier.test` until the way out."""
    folder = Path(tempfile.mkdtemp(prefix="dns"))
    (folder / "nsd.conf").write_text(_CONFIGURATION.format(address=ADDRESS, folder=folder, zone=ZONE))
    (folder / "zone").write_text(_HEAD.replace("SERIAL", "1"))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            ["/usr/sbin/nsd", "-d", "-c", str(folder / "nsd.conf")], stdout=log, stderr=log, stdin=subprocess.DEVNULL
        )
    server = DnsServer(folder, process)
    try:
        until("the name server is up", lambda: server._served() == 1 or process.poll() is not None)
        assert process.poll() is None, (folder / "log").read_text()
        yield server
    finally:
        process.terminate()
        process.wait(10)
        shutil.rmtree(folder, ignore_errors=True)

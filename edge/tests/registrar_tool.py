"""A real registrar: Kamailio with its own modules, as a carrier would run it. It sends calls to who is registered."""

import contextlib
import json
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from certificates_of_tests import Authority
from running_edge import until

USER, PASSWORD, REALM = "trunk-user", "its password", "carrier.test"
_CONFIGURATION = """#!KAMAILIO
debug=0
log_stderror=yes
fork=yes
children=1
auto_aliases=no
LISTEN
loadmodule "jsonrpcs.so"
loadmodule "kex.so"
loadmodule "tm.so"
loadmodule "sl.so"
loadmodule "rr.so"
loadmodule "pv.so"
loadmodule "textops.so"
loadmodule "siputils.so"
loadmodule "xlog.so"
loadmodule "usrloc.so"
loadmodule "registrar.so"
loadmodule "auth.so"
LOAD_TLS
modparam("jsonrpcs", "transport", 4)
modparam("jsonrpcs", "dgram_socket", "FOLDER/rpc.sock")
modparam("usrloc", "db_mode", 0)
modparam("usrloc", "timer_interval", 1)
modparam("registrar", "max_expires", MOST)
modparam("registrar", "received_avp", "$avp(received)")
modparam("auth", "algorithm", "ALGORITHM")
modparam("auth", "nonce_expire", 30)

request_route {
    if (has_totag()) {
        if (loose_route() || is_method("ACK")) {
            t_relay();
        }
        exit;
    }
    if (is_method("CANCEL")) {
        t_relay();
        exit;
    }
    if (is_method("REGISTER|OPTIONS")) {
        if (!pv_www_authenticate("REALM", "PASSWORD", "0") || $au != "USER") {
            www_challenge("REALM", "1");
            exit;
        }
        if (is_method("OPTIONS")) {
            sl_send_reply("200", "OK");
            exit;
        }
        if ($(hdr(Expires){s.int}) > 0 && $(hdr(Expires){s.int}) < LEAST) {
            append_to_reply("Min-Expires: LEAST\\r\\n");
            sl_send_reply("423", "Interval Too Brief");
            exit;
        }
        save("location");
        exit;
    }
    if (is_method("INVITE")) {
        $ru = "sip:USER@ADDRESS:PORT";
        if (!lookup("location")) {
            sl_send_reply("480", "Not Registered");
            exit;
        }
        record_route();
        t_relay();
    }
}
"""


@dataclass
class RegistrarServer:
    """A running registrar."""

    folder: Path
    address: str
    port: int

    def contacts(self) -> list[dict[str, Any]]:
        """Return who is registered as the one user that it knows: Contact URIs and how long they last."""
        found = self._call("ul.dump")
        records = [r["Info"] for domain in found["Domains"] for r in domain["Domain"]["AoRs"]]
        return [contact["Contact"] for record in records for contact in record["Contacts"]]

    def _call(self, method: str) -> Any:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            own = self.folder / "test.sock"
            own.unlink(missing_ok=True)
            sock.bind(str(own))
            sock.settimeout(5)
            sock.connect(str(self.folder / "rpc.sock"))
            sock.send(json.dumps({"jsonrpc": "2.0", "method": method, "id": 1}).encode())
            return json.loads(sock.recv(1 << 16)).get("result")


def _tls(folder: Path, address: str, authority: Authority | None) -> dict[str, str]:
    """Return the lines of the configuration that say what it listens on."""
    if authority is None:
        return {"LISTEN": "listen=udp:ADDRESS:PORT\nlisten=tcp:ADDRESS:PORT", "LOAD_TLS": ""}
    certificate, key = authority.issue(folder, address)
    load = f'loadmodule "tls.so"\nmodparam("tls", "certificate", "{certificate}")\n'
    load += f'modparam("tls", "private_key", "{key}")\nmodparam("tls", "tls_method", "TLSv1.2+")'
    return {"LISTEN": "enable_tls=yes\nlisten=tls:ADDRESS:PORT", "LOAD_TLS": load}


@contextlib.contextmanager
def registrar_server(
    address: str,
    port: int,
    *,
    algorithm: str = "MD5",
    least: int = 5,
    most: int = 600,
    password: str = PASSWORD,
    authority: Authority | None = None,
) -> Iterator[RegistrarServer]:
    """Run a registrar that binds for `least` to `most` seconds, until the way out.

    With an authority it speaks TLS on `port`, as `address`, else UDP and TCP.
    """
    folder = Path(tempfile.mkdtemp(prefix="reg"))
    values = {
        "FOLDER": folder,
        "ADDRESS": address,
        "PORT": port,
        "MOST": most,
        "LEAST": least,
        "USER": USER,
    }
    values |= {"ALGORITHM": algorithm, "REALM": REALM, "PASSWORD": password}
    text = _CONFIGURATION
    for name, lines in _tls(folder, address, authority).items():
        text = text.replace(name, lines)
    for name, value in values.items():
        text = text.replace(name, str(value))
    (folder / "kamailio.cfg").write_text(text)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            ["kamailio", "-DD", "-E", "-m", "32", "-f", str(folder / "kamailio.cfg"), "-Y", str(folder)],
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
        )
    server = RegistrarServer(folder, address, port)
    try:

        def is_up() -> bool:
            with contextlib.suppress(OSError):
                return server._call("core.version") is not None
            assert process.poll() is None, (folder / "log").read_text()
            return False

        until("the registrar is up", is_up)
        yield server
    finally:
        process.terminate()
        process.wait(10)
        shutil.rmtree(folder, ignore_errors=True)

"""Prepare and become one of the edge's daemons: `python -m voxpria_edge.daemons kamailio|rtpengine`.

The process becomes the daemon (execvp), in the foreground, so that who started it supervises the daemon itself.
"""

import os
import resource
import secrets
import shutil
import subprocess
import sys
import time
from pathlib import Path

from voxpria_routing.hosts import bracketed
from voxpria_routing.tls import CIPHERS

from voxpria_edge.desk.broken import MOST_BYTES
from voxpria_edge.settings import SYSTEM_AUTHORITIES, Settings
from voxpria_edge.trunks.networks import PRIVATE

_CONFIGURATION = Path(__file__).resolve().parent.parent / "kamailio"
_SANDBOX_SECONDS = 20.0


def kamailio_command(settings: Settings) -> list[str]:
    """Write Kamailio's configuration into the run folder and return its command line; its secrets are private."""
    folder = settings.run_dir.absolute() / "kamailio"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(_CONFIGURATION, folder)
    _write_tls_configuration(settings, folder / "tls.cfg")
    values = {
        "CONTROL": f"{settings.control_address}:{settings.sip_port}",
        "TRACE": "{}:{}".format(*settings.trace_address),
        "RUN_DIR": settings.run_dir.absolute(),
        "TOPOLOGY_KEY": _topology_key(settings.folder / "topology_key"),
        "MASK_HOST": settings.sip_name or bracketed(settings.sip_address),
        "MASK_V6": settings.sip_name or bracketed(settings.sip_address_v6 or settings.sip_address),
        "OWN_IP": settings.sip_address,
        "OWN_ADDRESS": f"{settings.sip_address}:{settings.sip_port}",
        "TLS_CONFIG": folder / "tls.cfg",
        "RING_MS": settings.ring_timeout_seconds * 1000,
        "STRANGER_PER_SECOND": settings.stranger_requests_per_second,
        "STRANGER_CONNECTION_SECONDS": settings.stranger_connection_seconds,
        "STRANGERS_PER_SECOND": settings.strangers_requests_per_second,
        "PRIVATE_NETWORKS": ",".join(PRIVATE),
        "ALLOWED_FILE": _existing(settings.allowed_file),
        "MOST_BYTES": MOST_BYTES,
        "CHILDREN": max(2, os.cpu_count() or 2),
    }
    lines = [f'#!substdef "!{name}!{value}!g"' for name, value in values.items()]
    _write_private(folder / "settings.cfg", "\n".join(lines) + "\n")
    (folder / "listen.cfg").write_text(_listen_lines(settings))
    settings.kamailio_socket.unlink(missing_ok=True)
    # -nostdlib: what it calls is in Kamailio already, and no package of headers is needed
    subprocess.run(["tcc", "-shared", "-nostdlib", "-o", folder / "tls_names.so", folder / "tls_names.c"], check=True)  # noqa: S603, S607
    preload = f"LD_PRELOAD={folder / 'tls_names.so'}"
    return [
        "env",
        preload,
        "kamailio",
        "-DD",
        "-E",
        "-m",
        "256",
        "-M",
        "16",
        "-f",
        str(folder / "kamailio.cfg"),
        "-Y",
        str(folder),
    ]


def rtpengine_command(settings: Settings) -> list[str]:
    """Make rtpengine's folder and return its command line.

    `--delete-delay=0`: a deleted session's capture and metadata are complete when the deletion is answered.
    """
    for name in ("pcaps", "metadata", "tmp"):
        (settings.captures / name).mkdir(mode=0o700, parents=True, exist_ok=True)
    settings.captures.chmod(0o700)
    return [
        "rtpengine",
        "--foreground",
        "--log-stderr",
        "--log-level=4",
        "--config-file=none",
        "--table=-1",
        *(f"--interface={a}" for a in (settings.media_address, settings.media_address_v6) if a),
        f"--listen-ng={settings.control_address}:{settings.sip_port}",
        f"--port-min={settings.media_port_min}",
        f"--port-max={settings.media_port_max}",
        f"--timeout={settings.media_timeout_seconds}",
        f"--silent-timeout={settings.media_timeout_seconds * 60}",
        "--delete-delay=0",
        "--recording-method=pcap",
        "--recording-format=eth",
        f"--recording-dir={settings.captures}",
        f"--num-threads={max(2, os.cpu_count() or 2)}",
    ]


def _write_tls_configuration(settings: Settings, path: Path) -> None:
    """TLS 1.2 and later on both sides; the trunks' servers are verified, the sandbox's against its own authority.

    The system's authorities are looked up in their folder as they are met: each of Kamailio's processes reading all
    of them at its start took it from one second to twenty.
    """
    folder = settings.folder / "tls"
    if not (folder / "certificate.pem").exists():
        from voxpria_edge import certificates  # noqa: PLC0415  (0.1 s that later starts need not spend)

        certificates.make(folder, settings.sip_address)
    if settings.sandbox:
        _wait_for(settings.sandbox_authority)
    own = f"ca_list = {settings.sandbox_authority}\n" if settings.sandbox_authority.exists() else ""
    path.write_text(
        f"[server:default]\nmethod = TLSv1.2+\ncipher_list = {CIPHERS}\n"
        f"verify_certificate = no\nrequire_certificate = no\n"
        f"private_key = {folder / 'key.pem'}\ncertificate = {folder / 'certificate.pem'}\n\n"
        f"[client:default]\nmethod = TLSv1.2+\ncipher_list = {CIPHERS}\n"
        f"verify_certificate = yes\nrequire_certificate = yes\n"
        f"ca_path = {SYSTEM_AUTHORITIES}\n{own}verify_depth = 4\n"
    )


def _wait_for(path: Path) -> None:
    """Give the sandbox, started beside us, the time to make its authority; without it only its TLS fails."""
    deadline = time.monotonic() + _SANDBOX_SECONDS
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.05)


def _listen_lines(settings: Settings) -> str:
    """Return Kamailio's sockets; servers are sought in both families where there is an IPv6 address."""
    sockets = [("udp", settings.sip_port), ("tcp", settings.sip_port), ("tls", settings.sip_tls_port)]
    families = "dns_cache_flags=1\n" if settings.sip_address_v6 is None else "dns_try_ipv6=yes\n"
    return families + "".join(
        f"listen={protocol}:{bracketed(address)}:{port}\n"
        for address in filter(None, (settings.sip_address, settings.sip_address_v6))
        for protocol, port in sockets
    )


def _write_private(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)


def _existing(path: Path) -> Path:
    """Return the path of a file that Kamailio wants to be there at its start."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.touch()
    return path


def _topology_key(path: Path) -> str:
    """Return the key that addresses are packed with, made once: calls outlive a restart."""
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write_private(path, secrets.token_hex(16))
    return path.read_text().strip()


def main() -> None:
    """Become the daemon that the first argument names."""
    commands = {"kamailio": kamailio_command, "rtpengine": rtpengine_command}
    command = commands[sys.argv[1]](Settings())
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # what they know, passwords and voices, is to be in no file
    os.execvp(command[0], command)  # noqa: S606  (that is what this program is for)


if __name__ == "__main__":
    main()

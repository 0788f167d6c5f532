"""Leads calls of every kind through the whole product, kills its parts, and says what is left: `python -m bench.soak`.

First a part is killed (kill -9) every so often, while calls go on; then, with all parts as they are, calls are led
twice, and what each process holds is measured behind both. It ends with what leaked, and then with code 1.
"""

import argparse
import contextlib
import itertools
import json
import random
import re
import socket
import sqlite3
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import psutil
from voxpria_edge.media.rtpengine import decode, encode

from bench.helper import machine, table
from bench.soak.carrier import OddCarrier
from tests.product import ROLES, TEST_KEY, Product

MAGIC = ("486", "603", "503", "404", "408", "010", "001", "005", "110", "012", "002", "302")
CALLEES = [f"+15555552{code}" for code in MAGIC] + ["+13035550177"]
OURS, INBOUND = "+15555557800", [f"+15555552{code}" for code in MAGIC]
ODD = "127.0.0.9"
KILLED = ("agent", "kamailio", "rtpengine", "api", "sandbox")
_QUIET_SECONDS = 240
_TABLES = ("live", "events", "asked", "secure", "answered", "trunks", "places", "ahead", "byes", "unheard")
_GROWTH_BYTES, _GROWTH_FILES = 16 << 20, 8
_FAULTS = re.compile(r'Traceback|"level": ?"(error|critical)"|"status": ?500|ERROR: |CRITICAL: |BUG: ')
_EXPECTED = re.compile(
    r"Kamailio is gone|connect|refused|rtpengine|rtpp|timed? ?out|send| tls |tcp_|evapi_recv"
    r"|t_forward_noack|bogus event 3|alembic_version",
    re.I,
)
"""What parts rightly say of killed others, of garbage, of an ACK that comes behind the BYE, of a new database."""


class Soak:
    """Calls, led by threads, on a running product."""

    def __init__(self, product: Product, seed: int) -> None:
        self.product, self._random = product, random.Random(seed)  # noqa: S311
        self.led: Counter[str] = Counter()
        self._carrier = OddCarrier(ODD, product.sip_port, product.sip_tls_port)
        self._names = itertools.count()

    def set_up(self) -> None:
        """Make trunks and numbers: one that places calls, those that are called, one that is called oddly."""
        self.product.number_with_a_carrier(OURS, username="soak", password="soak", max_duration=60)  # noqa: S106
        own = {"username": "test_user", "password": "test_pass"}
        for name, config in (("inbound", {}), ("odd", {"allowed_addresses": [ODD]})):
            trunk = {"name": name, "provider": "generic", "credentials": own}
            trunk["config"] = {"server": "sip.test.voxpria.com", "record": name == "inbound", **config}
            trunk_id = self.product.api("POST", "/sip/trunks", trunk, expect=201)["id"]
            for number in INBOUND if name == "inbound" else ["+15555557801"]:
                # whoever vanishes leaves the other side talking, and that is ended by max_duration alone
                body = {"phone_number": number, "trunk_id": trunk_id, "config": {"max_duration": 60}}
                imported = self.product.api("POST", "/phone-numbers/import", body, expect=201)
                self.product.api("POST", f"/phone-numbers/{imported['id']}/provision", expect=200)
            if name == "inbound":
                self._changed = trunk_id

    def lead(self, seconds: float, kill_every: float | None) -> None:
        """Lead calls of all kinds for so long."""
        ends_at = time.monotonic() + seconds
        work: list[Callable[[], None]] = [self._place, self._place, self._call_in, self._call_in, self._call_oddly]
        work += [self._call_oddly, self._change]
        threads = [threading.Thread(target=self._again, args=(each, ends_at)) for each in work]
        for thread in threads:
            thread.start()
        parts = itertools.cycle(KILLED)
        while kill_every and time.monotonic() + kill_every < ends_at:
            time.sleep(kill_every)
            self._kill(next(parts))
        for thread in threads:
            thread.join()

    def _again(self, work: Callable[[], None], ends_at: float) -> None:
        while time.monotonic() < ends_at:
            # a part that was killed answers nobody for a while
            with contextlib.suppress(httpx2.HTTPError, OSError, json.JSONDecodeError, AssertionError):
                work()
                self.led[work.__name__.strip("_")] += 1
                continue
            time.sleep(0.5)

    def _ask(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        answer = httpx2.request(
            method,
            f"{self.product.url}/v1{path}",
            json=body,
            headers={"Authorization": f"Bearer {TEST_KEY}"},
            timeout=30,
        )
        assert answer.is_success, answer.text
        return dict(answer.json()) if answer.content else {}

    def _place(self) -> None:
        call = self._ask("POST", "/calls", {"from": OURS, "to": self._random.choice(CALLEES)})
        time.sleep(self._random.choice((0.0, 0.1, 0.5, 3.0)))
        if self._random.random() < 0.8:
            self._ask("POST", f"/calls/{call['id']}/hangup")

    def _call_in(self) -> None:
        """Have the sandbox's carrier call; whoever closes the stream of its progress has it hang up."""
        body = {"to": self._random.choice(INBOUND), "seconds": self._random.choice((0, 0.5, 2)), "say": ""}
        with httpx2.stream("POST", f"{self.product.sandbox_url}/carrier/calls", json=body, timeout=60) as answer:
            patience = time.monotonic() + self._random.choice((0.2, 1, 6))
            for _ in answer.iter_lines():
                if time.monotonic() > patience:
                    return

    def _call_oddly(self) -> None:
        self._random.choice(self._carrier.ways)("+15555557801")

    def _change(self) -> None:
        """Switch recording and announcement, and make and delete a trunk."""
        announcement = {"text": "This call is recorded.", "language": "en"}
        config = {"record": self._random.random() < 0.7}
        config["recording_announcement"] = announcement if self._random.random() < 0.3 else None
        self._ask("PATCH", f"/sip/trunks/{self._changed}", {"config": config})
        trunk = {"name": f"short-lived {next(self._names)}", "provider": "elevenlabs"}
        made = self._ask("POST", "/sip/trunks", trunk | {"credentials": {"username": "soak", "password": "soak"}})
        time.sleep(0.5)
        self._ask("DELETE", f"/sip/trunks/{made['id']}?force=true")
        time.sleep(2)

    def _kill(self, part: str) -> None:
        with contextlib.suppress(psutil.Error):
            for process in self.product.pids(part)[:1]:
                process.kill()
                self.led[f"kill -9 {part}"] += 1


class Leftovers:
    """What is left of calls in all parts, looked at from outside."""

    def __init__(self, product: Product) -> None:
        self._product, self._edge = product, product.data / "edge"
        self._socket = product.data / "run" / "kamailio.sock"

    def wait(self, seconds: float) -> list[str]:
        """Wait until nothing is left, and return what still is by then."""
        deadline = time.monotonic() + seconds
        while True:
            left = list(self._found())
            if not left or time.monotonic() > deadline:
                return left
            time.sleep(1)

    def _found(self) -> Iterator[str]:
        try:
            for name in _TABLES:
                entries = [slot for row in self._rpc("htable.dump", name) or [] for slot in row["slot"]]
                if entries:
                    yield f"Kamailio's table {name}: {len(entries)}, as {entries[0]}"
            dialogs = self._rpc("dlg.list")
            if dialogs:
                yield f"Kamailio's dialogs: {len(dialogs) if isinstance(dialogs, list) else 1}"
            if sessions := self._sessions():
                yield f"rtpengine's sessions: {len(sessions)}, as {sessions[0]}"
            with contextlib.closing(sqlite3.connect(f"file:{self._edge}/spool.sqlite?mode=ro", uri=True)) as spool:
                for name in ("calls", "outbox", "dead"):
                    (count,) = spool.execute(f"SELECT count(*) FROM {name}").fetchone()  # noqa: S608  (names of ours)
                    if count:
                        yield f"the spool's table {name}: {count}"
            files = [path for path in (self._edge / "captures").rglob("*") if path.is_file()]
            files += [path for path in (self._edge / "recordings").rglob("*") if path.is_file()]
            if files:
                yield f"files of captures: {len(files)}, as {files[0]}"
            yield from self._open_calls()
        except (OSError, httpx2.HTTPError, sqlite3.Error, ValueError) as error:
            yield f"could not be looked at: {error!r}"

    def _rpc(self, method: str, *parameters: str) -> Any:  # noqa: ANN401  (JSON)
        with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.bind(f"{folder}/own.sock")
            sock.settimeout(10)
            sock.connect(str(self._socket))
            sock.send(json.dumps({"jsonrpc": "2.0", "method": method, "params": parameters, "id": 1}).encode())
            return json.loads(sock.recv(1 << 22)).get("result")

    def _sessions(self) -> list[Any]:
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            sock.settimeout(10)
            sock.sendto(b"soak " + encode({"command": "list", "limit": "100"}), ("127.0.0.4", self._product.sip_port))
            answer = decode(sock.recv(1 << 16).partition(b" ")[2])
        calls = answer.get("calls") if isinstance(answer, dict) else None
        return calls if isinstance(calls, list) else []

    def _open_calls(self) -> Iterator[str]:
        calls = list(self._pages("/calls"))
        ids = Counter(call["id"] for call in calls)
        if twice := [id_ for id_, count in ids.items() if count > 1]:
            yield f"calls that are there twice: {twice}"
        if still := [call["id"] for call in calls if call["status"] in ("queued", "in-progress")]:
            yield f"calls that have not ended: {len(still)}, as {still[0]}"
        for number in self._pages("/phone-numbers"):
            logged = self._product.api("GET", f"/calls?phone_number=%2B{number['number'][1:]}&per_page=1")[
                "pagination"
            ]["total"]
            stats = self._product.api("GET", f"/phone-numbers/{number['id']}")["stats"]
            if stats["total_calls"] != logged:
                yield f"stats of {number['number']}: {stats['total_calls']} calls, and {logged} in the log"

    def _pages(self, path: str) -> Iterator[dict[str, Any]]:
        for page in itertools.count(1):
            found = self._product.api("GET", f"{path}?per_page=100&page={page}")["data"]
            yield from found
            if len(found) < 100:
                return

    def held(self) -> dict[str, tuple[int, int]]:
        """Return the open files and the bytes of memory of each part, all its processes together."""
        found: dict[str, tuple[int, int]] = {}
        for role in ROLES:
            files = memory = 0
            for process in self._product.pids(role):
                with contextlib.suppress(psutil.Error):
                    files += process.num_fds()
                    memory += process.memory_full_info().uss
            found[role] = files, memory
        shared = self._rpc("core.shmmem")
        found["Kamailio's shared memory"] = 0, int(shared["used"])
        return found

    def faults(self) -> list[str]:
        """Return the lines of logs that tell of a fault that no killed part explains."""
        lines = (
            f"{log.name}: {line[:300]}"
            for log in sorted((self._product.data / "log").glob("*.log"))
            for line in log.read_text(errors="replace").splitlines()
            if _FAULTS.search(line) and not _EXPECTED.search(line)
        )
        return list(lines)


def main() -> int:
    """Soak, and say what leaked."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10, help="of calls while parts are killed")
    parser.add_argument("--kill-every", type=float, default=60, help="seconds")
    parser.add_argument("--steady-minutes", type=float, default=3, help="of calls before each of the two measurements")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="for data and logs, which stay then")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="soak")))
        product = stack.enter_context(Product.started(folder / "var"))
        soak, leftovers = Soak(product, options.seed), Leftovers(product)
        soak.set_up()
        soak.lead(options.minutes * 60, options.kill_every)
        leaked = [f"after the kills: {each}" for each in leftovers.wait(_QUIET_SECONDS)]
        measured = []
        for _ in range(2):
            soak.lead(options.steady_minutes * 60, None)
            leaked += leftovers.wait(_QUIET_SECONDS)
            measured.append(leftovers.held())
        rows = [(role, *before, *measured[1][role]) for role, before in measured[0].items()]
        for role, files, memory, files_after, memory_after in rows:
            # what PostgreSQL keeps at hand grows with its data, up to its own bounds
            is_more = files_after > files + _GROWTH_FILES or memory_after > memory + _GROWTH_BYTES
            if is_more and role != "postgres":
                leaked.append(f"{role} holds more than before: see the table")
        leaked += leftovers.faults()
    print(f"`{' '.join(['python -m bench.soak', *sys.argv[1:]])}`\n\n{machine()}\n")
    print(table(["led", "times"], sorted(soak.led.items())), end="\n\n")
    print(table(["part", "files", "bytes", "files later", "bytes later"], rows), end="\n\n")
    print("\n".join(["Leaked, or wrong:", *(f"- {each}" for each in leaked)]) if leaked else "Nothing leaked.")
    return 1 if leaked else 0


if __name__ == "__main__":
    sys.exit(main())

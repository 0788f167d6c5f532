"""The routes on disk: what is loaded is what was in force, whatever broke off."""

import asyncio
from pathlib import Path

import msgspec
import pytest
from kamailio_words import NUMBER, ROUTES, TRUNK
from voxpria_edge.control_plane import ControlPlaneError
from voxpria_edge.routes.route_store import RouteStore
from voxpria_edge.routes.routes import Routes
from voxpria_routing.snapshot import Delta, Number, Snapshot
from voxpria_routing.table import Table

pytestmark = pytest.mark.unit
TOKEN = "a token"


def number(i: int) -> Number:
    return msgspec.structs.replace(NUMBER, id=f"phone_{i}", e164=f"+1555555{i:04}")


def delta(base: int) -> Delta:
    return Delta(base=base, version=base + 1, numbers=(number(base),))


def test_deltas_are_loaded_after_their_snapshot(tmp_path: Path) -> None:
    store, table = RouteStore(tmp_path / "snapshot", TOKEN), Table(ROUTES)
    store.put(ROUTES)
    for base in range(1, 6):
        store.add(delta(base))
        table.apply(delta(base))
    assert RouteStore(tmp_path / "snapshot", TOKEN).load().snapshot() == table.snapshot()
    assert (tmp_path / "snapshot.deltas").stat().st_mode & 0o077 == 0
    assert b"+1555" not in (tmp_path / "snapshot.deltas").read_bytes()


@pytest.mark.parametrize("lost_bytes", [1, 30, 200])
def test_what_was_half_written_is_left_out(tmp_path: Path, lost_bytes: int) -> None:
    store = RouteStore(tmp_path / "snapshot", TOKEN)
    store.put(ROUTES)
    store.add(delta(1))
    store.add(delta(2))
    file = tmp_path / "snapshot.deltas"
    file.write_bytes(file.read_bytes()[:-lost_bytes])
    assert store.load().version == 2


def test_deltas_that_the_snapshot_holds_already_are_passed_over(tmp_path: Path) -> None:
    store, table = RouteStore(tmp_path / "snapshot", TOKEN), Table(ROUTES)
    store.put(ROUTES)
    for base in (1, 2):
        store.add(delta(base))
        table.apply(delta(base))
    kept = (tmp_path / "snapshot.deltas").read_bytes()
    store.put(table.snapshot())
    (tmp_path / "snapshot.deltas").write_bytes(kept)  # a crash before they were removed
    assert store.load().version == 3


def test_another_token_or_a_damaged_file_is_no_snapshot(tmp_path: Path) -> None:
    RouteStore(tmp_path / "snapshot", TOKEN).put(ROUTES)
    assert RouteStore(tmp_path / "snapshot", "another").load().version == 0
    (tmp_path / "snapshot").write_bytes(b"\x00" * 50)
    assert RouteStore(tmp_path / "snapshot", TOKEN).load().version == 0


class Source:
    """A control plane that gives each answer in turn, then none."""

    def __init__(self, *answers: Snapshot | Delta | ControlPlaneError) -> None:
        self.answers, self.asked = list(answers), list[str]()

    async def snapshot(self, after: int) -> object:
        return await self._next(f"snapshot {after}")

    async def changes(self, after: int) -> object:
        return await self._next(f"changes {after}")

    async def _next(self, asked: str) -> object:
        self.asked.append(asked)
        if not self.answers:
            await asyncio.Event().wait()
        answer = self.answers.pop(0)
        if isinstance(answer, ControlPlaneError):
            raise answer
        return answer


async def test_a_snapshot_first_then_changes_and_a_snapshot_again_where_only_that_leads_on(tmp_path: Path) -> None:
    later = msgspec.structs.replace(ROUTES, version=9, numbers={}, trunks={TRUNK.id: TRUNK})
    source = Source(ROUTES, delta(1), delta(2), ControlPlaneError("gone", 410), later)
    routes = Routes(tmp_path / "snapshot", TOKEN, source)
    following = asyncio.create_task(routes.follow())
    async with asyncio.timeout(10):
        while len(source.asked) < 6:
            await asyncio.sleep(0.01)
    following.cancel()
    assert source.asked == ["snapshot 0", "changes 1", "changes 2", "changes 3", "snapshot 3", "changes 9"]
    assert routes.table.snapshot() == later
    assert RouteStore(tmp_path / "snapshot", TOKEN).load().snapshot() == later

"""A snapshot as it travels: whole, or not at all."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from voxpria_routing import snapshot as wire
from voxpria_routing.snapshot import IncompleteError, Number, Reader, Snapshot, Trunk

from routing.tests.test_table import numbers, trunks

pytestmark = pytest.mark.unit


def routes(held: list[Trunk], some: list[Number]) -> Snapshot:
    by_number: dict[str, tuple[Number, ...]] = {}
    for number in some:
        by_number[number.e164] = (*by_number.get(number.e164, ()), number)
    return Snapshot(version=7, trunks={trunk.id: trunk for trunk in held}, numbers=by_number)


def read(lines: list[bytes]) -> Snapshot:
    reader = Reader()
    for line in lines:
        reader.take(line)
    return reader.snapshot()


snapshots = st.builds(routes, st.lists(trunks, max_size=3), st.lists(numbers, max_size=20))


@given(snapshots, st.integers(1, 5))
def test_what_is_read_is_what_was_written(snapshot: Snapshot, numbers_a_line: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wire, "NUMBERS_A_LINE", numbers_a_line)
        lines = list(wire.lines(snapshot))
    assert read(lines) == snapshot
    assert wire.decode(b"".join(lines)) == snapshot
    assert all(line.count(b"\n") == 1 for line in lines)


@given(snapshots, st.data())
def test_a_snapshot_that_lost_a_line_is_none(snapshot: Snapshot, data: st.DataObject) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wire, "NUMBERS_A_LINE", 2)
        lines = list(wire.lines(snapshot))
    lost = data.draw(st.integers(0, len(lines) - 1))
    with pytest.raises(IncompleteError):
        read([*lines[:lost], *lines[lost + 1 :]])


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{}",
        b'{"part":"numbers","shared":[],"numbers":[["a","+1",0]]}',
        b'{"part":"numbers","shared":[],"numbers":[["a","+1",-1]]}',
        b'{"part":"end","numbers":3}',
        b'{"part":"head","version":1,"trunks":[]}',
    ],
)
def test_a_line_that_makes_no_sense_is_refused(line: bytes) -> None:
    reader = Reader()
    reader.take(wire.line(wire.Head(version=1, trunks=())))
    with pytest.raises((IncompleteError, msgspec.MsgspecError)):
        reader.take(line)


def test_what_numbers_have_in_common_is_held_once() -> None:
    shared = {"account_id": "acc", "mode": "test", "carrier_trunk_id": "t", "agent_trunk_id": "t"}
    some = [Number(id=f"phone_{i}", e164=f"+1555555{i:04}", first_message="Hello, " * 9, **shared) for i in range(2000)]
    held = read(list(wire.lines(routes([], some)))).numbers
    assert len({id(number.first_message) for (number,) in held.values()}) == 1

"""A table that takes deltas is the table that the end would make; its indexes find what a search would."""

import ipaddress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from voxpria_routing.snapshot import Delta, Number, Snapshot, Trunk
from voxpria_routing.table import Table

pytestmark = pytest.mark.unit

NETWORKS = ("203.0.113.0/29", "203.0.113.4", "0.0.0.0/0", "2001:db8::/64", "203.0.113.0/24", "2001:db8::5")
trunks = st.builds(
    lambda i, allowed, username, is_open: Trunk(
        id=f"trunk_{i}",
        account_id="acc",
        mode="test",
        name="T",
        provider="generic",
        server="sip.example.com",
        port=5060,
        transport="udp",
        allowed_addresses=tuple(allowed),
        username=username,
        password=username,
        is_open=is_open,
    ),
    st.integers(0, 3),
    st.lists(st.sampled_from(NETWORKS), max_size=3),
    st.sampled_from([None, "a", "b"]),
    st.booleans(),
)
numbers = st.builds(
    lambda i, j, agent, reason: Number(
        id=f"phone_{i}{j}",
        e164=f"+1555555000{i}",
        account_id="acc",
        mode="test",
        carrier_trunk_id="trunk_0",
        agent_trunk_id=agent,
        disabled_reason=reason,
    ),
    st.integers(0, 2),
    st.integers(0, 2),
    st.sampled_from([None, "trunk_0", "trunk_1", "trunk_2"]),
    st.sampled_from([None, "it is switched off"]),
)
changes = st.lists(st.tuples(st.booleans(), trunks | numbers), max_size=6)


def held_by(held: dict[str, Number]) -> dict[str, tuple[Number, ...]]:
    by_number: dict[str, tuple[Number, ...]] = {}
    for number in sorted(held.values(), key=lambda number: number.id):
        by_number[number.e164] = (*by_number.get(number.e164, ()), number)
    return by_number


@given(st.lists(changes, max_size=6), st.ip_addresses() | st.sampled_from([ipaddress.ip_address("203.0.113.5")]))
def test_deltas_lead_to_what_a_whole_snapshot_makes(steps: list[list[tuple[bool, Trunk | Number]]], source) -> None:
    table = Table(Snapshot(version=1, trunks={}, numbers={}))
    known_trunks: dict[str, Trunk] = {}
    known_numbers: dict[str, Number] = {}
    for version, step in enumerate(steps, 1):
        changed_trunks: dict[str, Trunk | None] = {}
        changed_numbers: dict[str, Number | tuple[str, str]] = {}
        for is_kept, thing in step:
            if isinstance(thing, Trunk):
                changed_trunks[thing.id] = thing if is_kept else None
            else:
                changed_numbers[thing.id] = thing if is_kept else (thing.e164, thing.id)
        known_trunks = {id_: t for id_, t in (known_trunks | changed_trunks).items() if t is not None}
        known_numbers = {id_: n for id_, n in (known_numbers | changed_numbers).items() if isinstance(n, Number)}
        table.apply(
            Delta(
                base=version,
                version=version + 1,
                trunks=changed_trunks,
                numbers=tuple(n for n in changed_numbers.values() if isinstance(n, Number)),
                removed=tuple(n for n in changed_numbers.values() if not isinstance(n, Number)),
            )
        )
    whole = Table(Snapshot(version=len(steps) + 1, trunks=known_trunks, numbers=held_by(known_numbers)))
    assert table.snapshot() == whole.snapshot()
    assert table.takes_digests == whole.takes_digests
    for each in (table, whole):
        assert [t.id for t in each.trunks_of_source(source)] == sorted(
            t.id
            for t in known_trunks.values()
            if t.is_open or any(source in ipaddress.ip_network(a) for a in t.allowed_addresses)
        )
        assert {t.id for t in each.trunks_in_use()} == known_trunks.keys() & {
            id_
            for n in known_numbers.values()
            if n.disabled_reason is None
            for id_ in (n.carrier_trunk_id, n.agent_trunk_id)
        }
        assert [t.id for t in each.trunks_of_username("a")] == sorted(
            t.id for t in known_trunks.values() if t.username == "a"
        )


def test_a_delta_that_begins_elsewhere_changes_nothing() -> None:
    table = Table(Snapshot(version=3, trunks={}, numbers={}))
    before = table.snapshot()
    with pytest.raises(ValueError, match="another version"):
        table.apply(Delta(base=2, version=4))
    assert table.snapshot() == before == msgspec.structs.replace(before)

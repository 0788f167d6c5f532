"""The call log's totals and pages are exact, whatever was written, by whom, and in what order."""

import asyncio
import importlib
import random
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from voxpria_server.auth.service import SANDBOX_ACCOUNT_ID, Caller, seed_sandbox
from voxpria_server.calls import queries
from voxpria_server.calls.queries import Filters
from voxpria_server.calls.spans import EARLIEST, LATEST, OF_A_NUMBER, OF_ALL, cut, floor
from voxpria_server.errors import InvalidParameterError
from voxpria_server.kit.db import Database
from voxpria_server.kit.ids import new_id
from voxpria_server.kit.pagination import PageQuery

CALLER = Caller(account_id=SANDBOX_ACCOUNT_ID, mode="test", key_id="key_x", scopes=frozenset())
NUMBERS = ("+15555551234", "+15555550000", "*")
STATUSES = ("in-progress", "completed", "busy", "failed")
BEGIN = datetime(2026, 1, 30, 22, tzinfo=UTC)
REVISION = "voxpria_server.migrations.versions.0003_call_counts"
HOURS = 60
"""What calls are spread over: the end of a month, and some days."""

INSERT = sa.text(
    "INSERT INTO calls (id, account_id, mode, phone_number, direction, from_number, to_number, status, started_at,"
    " duration_seconds, max_duration_seconds, explanation, recording, edge_id, sip_call_id, updated_at)"
    " VALUES (:id, :account, :mode, :number, :direction, 'x', 'y', :status, :at, 0, 60, '{}', 'none', 'e', 's', now())"
)

moments = st.datetimes(datetime(2026, 1, 1), datetime(2028, 3, 1)).map(lambda t: t.replace(tzinfo=UTC))  # noqa: DTZ001
ends = st.none() | moments | moments.map(lambda t: floor(t, "day")) | moments.map(lambda t: floor(t, "month"))


@pytest.mark.unit
@given(ends, ends, st.sampled_from([OF_ALL, OF_A_NUMBER]))
def test_a_range_is_cut_without_gap_or_overlap(since, before, levels):
    spans = cut(since, before, levels)
    for newer, older in pairwise(spans):
        assert newer.since == older.before
    if not spans:
        assert (since or EARLIEST) >= (before or LATEST)
        return
    assert (spans[-1].since, spans[0].before) == (since or EARLIEST, before or LATEST)
    assert len(spans) <= 2 * len(levels) + 1
    for span in spans:
        assert span.since < span.before
        if span.level != "call":
            assert floor(span.since, span.level) == span.since
            assert span.before == LATEST or floor(span.before, span.level) == span.before


@pytest.mark.unit
@pytest.mark.parametrize("moment", [EARLIEST, LATEST, LATEST - timedelta(days=31), EARLIEST + timedelta(seconds=1)])
def test_the_ends_of_time_are_no_trouble(moment):
    for since, before in ((moment, None), (None, moment), (moment, moment), (moment, LATEST), (EARLIEST, moment)):
        spans = cut(since, before, OF_ALL)
        assert all(newer.since == older.before for newer, older in pairwise(spans))


def random_call(chance: random.Random, account: str = SANDBOX_ACCOUNT_ID) -> dict:
    at = BEGIN + timedelta(hours=chance.random() * HOURS)
    if chance.random() < 0.3:
        at = floor(at, "hour")  # many at the same instant, and on the edge of hours and days
    return {
        "id": new_id("call"),
        "account": account,
        "mode": chance.choice(["test", "test", "test", "live"]),
        "number": chance.choice(NUMBERS),
        "direction": chance.choice(["inbound", "outbound"]),
        "status": chance.choice(STATUSES),
        "at": at,
    }


async def write(database: Database, chance: random.Random, known: list[str], transactions: int) -> None:
    """Insert, change and remove calls in transactions of random size, some of which are rolled back."""
    for _ in range(transactions):
        mine = []
        try:
            async with database.transaction() as conn:
                for _ in range(chance.randint(1, 12)):
                    mine += await _act(conn, chance, known)
                if chance.random() < 0.2:
                    raise ZeroDivisionError  # noqa: TRY301
        except ZeroDivisionError:
            continue
        known += mine


async def _act(conn, chance: random.Random, known: list[str]) -> list[str]:
    if not known or chance.random() < 0.6:
        rows = [random_call(chance) for _ in range(chance.choice([1, 1, 5]))]
        await conn.execute(INSERT, rows)
        return [row["id"] for row in rows]
    if chance.random() < 0.1:
        async with conn.begin_nested() as nested:
            await conn.execute(INSERT, random_call(chance))
            await nested.rollback()
    picked = chance.choice(known)
    # One's own only: two transactions that change the same calls in other orders would deadlock on the calls.
    await conn.execute(
        sa.text("UPDATE calls SET status = :status WHERE id = :id"), {"id": picked, "status": chance.choice(STATUSES)}
    )
    if chance.random() < 0.1:
        await conn.execute(sa.text("DELETE FROM calls WHERE id = :id"), {"id": picked})
    return []


def random_filters(chance: random.Random) -> Filters:
    def moment() -> datetime | None:
        at = BEGIN + timedelta(hours=chance.uniform(-5, HOURS + 5))
        return chance.choice([None, at, floor(at, "hour"), floor(at, "day"), floor(at, "month")])

    return Filters(
        phone_number=chance.choice([None, *NUMBERS, "+10000000"]),
        direction=chance.choice([None, None, "inbound", "outbound"]),
        status=chance.choice([None, None, *STATUSES, "canceled"]),
        since=moment(),
        before=moment(),
    )


async def naive(conn, filters: Filters, page: PageQuery) -> tuple[list[str], int]:
    """Count and cut as one would without any help."""
    conditions = {
        "phone_number = :phone_number": filters.phone_number,
        "direction = :direction": filters.direction,
        "status = :status": filters.status,
        "started_at >= :since": filters.since,
        "started_at < :before": filters.before,
    }
    where = " AND ".join(
        ["account_id = :account AND mode = 'test'", *(text for text, value in conditions.items() if value is not None)]
    )
    args = {text.rpartition(":")[2]: value for text, value in conditions.items() if value is not None}
    args |= {"account": SANDBOX_ACCOUNT_ID, "skip": (page.page - 1) * page.per_page, "take": page.per_page}
    total = (await conn.execute(sa.text(f"SELECT count(*) FROM calls WHERE {where}"), args)).scalar_one()
    if page.starting_after is not None:
        where += " AND (started_at, id) < (SELECT started_at, id FROM calls WHERE id = :after)"
        args["after"] = page.starting_after
    listed = f"SELECT id FROM calls WHERE {where} ORDER BY started_at DESC, id DESC OFFSET :skip LIMIT :take"
    return list((await conn.execute(sa.text(listed), args)).scalars()), total


async def ours(database: Database, filters: Filters, page: PageQuery) -> tuple[list[str], int]:
    rows, total = await queries.list_page(database, CALLER, page, filters)
    return [row["id"] for row in rows], total


@pytest.fixture
async def own_database(database_url):
    database = Database(database_url, pool_size=12)
    async with database.transaction() as conn:
        await seed_sandbox(conn)
    yield database
    await database.close()


@pytest.mark.parametrize("seed", range(3))
async def test_it_is_what_counting_says_after_many_writers_at_once(own_database, seed):
    chance = random.Random(seed)
    async with asyncio.timeout(90):
        await asyncio.gather(
            *(write(own_database, random.Random(seed * 100 + n), [], transactions=15) for n in range(8))
        )
    async with own_database.read() as conn:
        known = list((await conn.execute(sa.text("SELECT id FROM calls WHERE mode = 'test'"))).scalars())
        slots = (await conn.execute(sa.text("SELECT count(DISTINCT slot) FROM call_counts"))).scalar_one()
        assert slots > 1, "nobody wrote at the same time"
        for _ in range(150):
            filters = random_filters(chance)
            page = PageQuery(
                page=chance.choice([1, 1, 2, 3, 7, 50]),
                per_page=chance.choice([1, 3, 20, 100]),
                starting_after=chance.choice([None, None, chance.choice(known)]),
            )
            assert await ours(own_database, filters, page) == await naive(conn, filters, page), (filters, page)


async def test_a_page_and_its_total_are_of_one_moment(own_database):
    """While writers write, each answer is what the whole log was at some moment: total and pages agree."""
    chance = random.Random(7)
    writers = [asyncio.create_task(write(own_database, random.Random(n), [], transactions=25)) for n in range(4)]
    everything = PageQuery(page=1, per_page=100, starting_after=None)
    looked = 0
    async with asyncio.timeout(90):
        while looked < 30 or not all(writer.done() for writer in writers):
            day = BEGIN + timedelta(hours=chance.randint(0, HOURS))
            filters = Filters(since=day, before=day + timedelta(hours=chance.randint(0, 9), minutes=13))
            ids, total = await ours(own_database, filters, everything)
            assert len(ids) == min(total, 100)
            assert len(set(ids)) == len(ids)
            looked += 1
        await asyncio.gather(*writers)


async def test_calls_that_were_there_before_are_counted_by_the_migration(own_database):
    chance = random.Random(3)
    await write(own_database, chance, [], transactions=30)
    async with own_database.transaction() as conn:
        listed = sa.text(
            "SELECT account_id, mode, phone_number, level, bucket, direction, status, sum(n)::int FROM call_counts"
            " GROUP BY 1, 2, 3, 4, 5, 6, 7 HAVING sum(n) <> 0 ORDER BY 1, 2, 3, 4, 5, 6, 7"
        )
        kept = list(await conn.execute(listed))
        await conn.execute(sa.text("DELETE FROM call_counts"))
        await conn.execute(sa.text(importlib.import_module(REVISION).BACKFILL))
        assert list(await conn.execute(listed)) == kept
        assert kept


async def test_a_number_without_a_name_is_in_no_list_of_a_number(own_database):
    async with own_database.transaction() as conn:
        await conn.execute(INSERT, random_call(random.Random(1)) | {"number": "", "mode": "test"})
    everything = PageQuery(page=1, per_page=100, starting_after=None)
    assert (await ours(own_database, Filters(), everything))[1] == 1


async def test_starting_after_what_is_not_there(own_database):
    async with own_database.transaction() as conn:
        others = random_call(random.Random(1)) | {"mode": "live"}
        await conn.execute(INSERT, others)
    for unknown in (others["id"], "call_x", ""):
        with pytest.raises(InvalidParameterError):
            await ours(own_database, Filters(), PageQuery(page=1, per_page=5, starting_after=unknown))


async def test_no_row_is_left_of_what_is_gone(own_database):
    async with own_database.transaction() as conn:
        await conn.execute(INSERT, [random_call(random.Random(n)) for n in range(50)])
        await conn.execute(sa.text("UPDATE calls SET status = 'completed'"))
        await conn.execute(sa.text("DELETE FROM calls"))
        assert list(await conn.execute(sa.text("SELECT * FROM call_counts"))) == []

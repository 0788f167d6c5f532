"""Refused calls that are no account's: kept by source, bounded, and listed for the operator."""

import asyncio
import re
from datetime import timedelta

import msgspec
import pytest
import sqlalchemy as sa
from voxpria_routing.decision import Cause
from voxpria_routing.edge_api import OTHERS, Refused, Strangers
from voxpria_server.edge_api import service
from voxpria_server.kit.clock import utc_now

from server.tests.edge_client import TOKEN
from server.tests.test_keys import Admin


def refused(source: str, count: int = 1, **changes) -> Refused:
    now = utc_now()
    values = {
        "source": source,
        "cause": Cause.NUMBER_NOT_FOUND,
        "count": count,
        "first_at": now,
        "last_at": now,
        "transport": "udp",
        "called": "+15550009999",
        "why": "Nobody has the number.",
        "nearest": "+15550009998",
        "mend": "Import it.",
    }
    return Refused(**(values | changes))


async def tell(edge, *calls: Refused) -> None:
    body = msgspec.json.encode(Strangers(edge_id="edge_1", refused=calls))
    answer = await edge.post("/edge/v1/strangers", content=body)
    assert answer.status_code == 204, answer.text


async def kept(database) -> dict[str, int]:
    async with database.read() as conn:
        rows = await conn.execute(sa.text("SELECT source, sum(count) FROM refused_calls GROUP BY source"))
        return {row[0]: int(row[1]) for row in rows}


def counted(metrics: str) -> float:
    found = re.search(r'^voxpria_refused_calls_total\{cause="number_not_found"\} (\S+)$', metrics, re.M)
    return float(found[1]) if found else 0.0


@pytest.fixture
async def edge(api):
    return await api.client(TOKEN)


async def test_what_edges_refuse_is_summed_and_counted(api, edge):
    before = counted((await edge.get("/metrics")).text)
    await tell(edge, refused("192.0.2.1", 3), refused("192.0.2.2"))
    await tell(edge, refused("192.0.2.1", 4, called="+15550008888"))
    assert await kept(api.database) == {"192.0.2.1": 7, "192.0.2.2": 1}
    assert counted((await edge.get("/metrics")).text) - before == 8


async def test_a_flood_from_everywhere_fills_nothing(api, edge, monkeypatch):
    monkeypatch.setattr(service, "MOST_A_DAY", 5)
    for start in (0, 100):
        await tell(edge, *(refused(f"192.0.2.{n}") for n in range(start, start + 100)))
    await tell(edge, refused("192.0.2.1"))
    found = await kept(api.database)
    assert (len(found), found[OTHERS], found["192.0.2.1"]) == (6, 195, 2)


async def test_old_days_are_forgotten(api, edge):
    await tell(edge, refused("192.0.2.1"))
    async with api.database.transaction() as conn:
        await conn.execute(sa.text("UPDATE refused_calls SET day = day - 14"))
    await tell(edge, refused("192.0.2.2"))
    assert await kept(api.database) == {"192.0.2.2": 1}


async def test_the_operator_reads_who_came_what_was_nearest_and_how_to_mend_it(api, edge):
    await tell(edge, refused("192.0.2.1", 3, last_at=utc_now() - timedelta(minutes=1)), refused("192.0.2.2"))
    listed = await asyncio.to_thread(Admin(api.database.url), "refused", "--limit", "5")
    assert [(one["source"], one["count"]) for one in listed] == [("192.0.2.2", 1), ("192.0.2.1", 3)]
    assert (
        listed[0].items()
        >= {
            "called": "+15550009999",
            "why": "Nobody has the number.",
            "nearest": "+15550009998",
            "mend": "Import it.",
            "cause": "number_not_found",
        }.items()
    )

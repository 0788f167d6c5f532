"""The rules for refused calls that are no account's: counted by source, so many a day, for so many days."""

from datetime import timedelta

import msgspec
from prometheus_client import Counter
from sqlalchemy.ext.asyncio import AsyncConnection
from voxpria_routing.edge_api import OTHERS, Refused, Strangers

from voxpria_server.edge_api import queries
from voxpria_server.kit.clock import utc_now
from voxpria_server.kit.metrics import REGISTRY

REFUSED_KEPT_DAYS = 14
MOST_A_DAY = 1000
"""So many sources and causes are told apart in a day; what comes from further sources is one sum a cause."""

_refused_calls = Counter(
    "voxpria_refused_calls", "Refused calls that are no account's, by cause.", ("cause",), registry=REGISTRY
)


async def take_strangers(conn: AsyncConnection, news: Strangers) -> None:
    """Add what an edge has refused. Told twice, as after a lost answer, it counts twice."""
    today = utc_now().date()
    known = await queries.refused_keys(conn, today)
    sums: dict[tuple[str, str], Refused] = {}
    for one in news.refused:
        key = (one.source, one.cause.value)
        if key not in known and len(known) >= MOST_A_DAY:
            key = (OTHERS, one.cause.value)
        known.add(key)
        sums[key] = one.after(sums.get(key))
        _refused_calls.labels(one.cause.value).inc(one.count)
    rows = [
        msgspec.structs.asdict(one) | {"day": today, "source": source, "cause": cause, "edge_id": news.edge_id}
        for (source, cause), one in sums.items()
    ]
    await queries.add_refused(conn, rows)
    await queries.delete_refused(conn, today - timedelta(days=REFUSED_KEPT_DAYS - 1))

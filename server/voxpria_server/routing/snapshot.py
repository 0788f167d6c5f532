"""What the edges get: every trunk and number, as one state.

A number that can't be called now is in it too, with the reason: the edge then says why it refuses.
"""

from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection
from voxpria_routing import snapshot as wire
from voxpria_routing.hosts import host_port
from voxpria_routing.snapshot import Announcement, Delta, Limits, Number, Snapshot, Trunk

from voxpria_server.kit.db import Row
from voxpria_server.kit.logs import get_logger
from voxpria_server.kit.sealing import SealBrokenError, Sealer
from voxpria_server.numbers.service import target_of
from voxpria_server.providers.hosts import way_to
from voxpria_server.routing import queries, version
from voxpria_server.settings import Settings
from voxpria_server.trunks.service import open_credentials

_log = get_logger(__name__)

_MOST_CHANGES = 20_000
"""More than this is sent as a whole: an edge applies a delta in one go."""

_MOST_MADE = 10_000
Owner = tuple[str, str, str]
"""Account, mode, provider."""
Rest = tuple[object, ...]
"""A number's row without its id and number."""


async def lines(conn: AsyncConnection, settings: Settings, sealer: Sealer) -> AsyncIterator[bytes]:
    """Give the present routes line by line; passwords are in clear in them, so they are a secret as a whole.

    To be run in one repeatable read: all lines are then of one moment.
    """
    now_at = await version.current(conn)
    builder = _Builder({row.id: row for row in await queries.all_trunks(conn)}, settings, sealer)
    of_accounts = limits_of(await queries.call_limits(conn), settings)
    head = wire.Head(version=now_at, trunks=builder.trunks(), limits=of_accounts, default_limits=limits(settings))
    yield wire.line(head)
    count = 0
    async for rows in queries.all_numbers(conn):
        some = builder.numbers(rows)
        count += len(some.numbers)
        yield wire.line(some)
    yield wire.line(wire.End(numbers=count))


async def build_delta(conn: AsyncConnection, settings: Settings, sealer: Sealer, after: int) -> Delta | None:
    """Return what leads from version `after` to the present routes; None where only the whole of them does.

    To be run in one repeatable read: the changes and the rows are then of one moment.
    """
    now_at = await version.current(conn)
    changes = await queries.changes_since(conn, after, _MOST_CHANGES + 1)
    if after > now_at or len(changes) > _MOST_CHANGES or any(change.kind == "all" for change in changes):
        return None
    trunk_ids = {change.id for change in changes if change.kind == "trunk"}
    gone = {change.id: change.e164 for change in changes if change.kind == "number"}
    numbers = await queries.numbers_by_id(conn, gone.keys())
    trunk_rows = {
        row.id: row
        for row in await queries.trunks_concerned(conn, trunk_ids, {number.account_id for number in numbers})
    }
    builder = _Builder(trunk_rows, settings, sealer)
    for number in numbers:
        del gone[number.id]
    return Delta(
        base=after,
        version=now_at,
        trunks={id_: builder.trunk(trunk_rows[id_]) if id_ in trunk_rows else None for id_ in trunk_ids},
        numbers=tuple(builder.number(row) for row in numbers if row.trunk_id in trunk_rows),
        removed=tuple((e164, id_) for id_, e164 in gone.items()),
        limits=limits_of(await queries.call_limits(conn), settings),
        default_limits=limits(settings),
    )


def assemble(
    now_at: int,
    trunk_rows: Mapping[str, Row],
    number_rows: Sequence[Row],
    settings: Settings,
    sealer: Sealer,
    limit_rows: Sequence[Row],
) -> Snapshot:
    """Put a snapshot together, its numbers in the order of their ids. Pure."""
    builder = _Builder(trunk_rows, settings, sealer)
    numbers: dict[str, tuple[Number, ...]] = {}
    for row in number_rows:
        if row.trunk_id in trunk_rows:
            numbers[row.e164] = (*numbers.get(row.e164, ()), builder.number(row))
    trunks = {trunk.id: trunk for trunk in builder.trunks()}
    of_accounts = limits_of(limit_rows, settings)
    return Snapshot(version=now_at, trunks=trunks, numbers=numbers, limits=of_accounts, default_limits=limits(settings))


def limits_of(rows: Sequence[Row], settings: Settings) -> dict[str, Limits]:
    """Return what accounts may have going on whose plans say so; no call at all where the plan is without SIP."""
    default = limits(settings)
    return {
        row.id: Limits(
            max_concurrent_calls=(row.max_concurrent_calls or default.max_concurrent_calls)
            if row.is_sip_enabled
            else 0,
            max_calls_per_second=row.max_calls_per_second or default.max_calls_per_second,
        )
        for row in rows
    }


def limits(settings: Settings) -> Limits:
    """Return what an account may have going on in one mode, on one edge, where its plan does not say."""
    return Limits(
        max_concurrent_calls=settings.account_max_concurrent_calls,
        max_calls_per_second=settings.account_max_calls_per_second,
    )


class _Builder:
    """Turns rows into routes, remembering why a trunk's server can't be dialled."""

    def __init__(self, trunk_rows: Mapping[str, Row], settings: Settings, sealer: Sealer) -> None:
        self._rows, self._settings, self._sealer = trunk_rows, settings, sealer
        self._barred: dict[str, str] = {}
        self._made: dict[Rest, Number] = {}
        self._of_engine: dict[Owner, list[Row]] = defaultdict(list)
        for row in trunk_rows.values():
            self._of_engine[row.account_id, row.mode, row.provider].append(row)

    def trunks(self) -> tuple[Trunk, ...]:
        """Return the routes of all trunks."""
        return tuple(map(self.trunk, self._rows.values()))

    def numbers(self, rows: Sequence[Row]) -> wire.Numbers:
        """Return the routes of some numbers; what several have in common is made once."""
        if len(self._made) > _MOST_MADE:
            self._made.clear()
        places: dict[Rest, int] = {}
        named = []
        for row in rows:
            rest = row[2:]
            if rest not in places:
                if row.trunk_id not in self._rows:
                    continue  # it was deleted together with its trunk
                places[rest] = len(places)
                if rest not in self._made:
                    self._made[rest] = msgspec.structs.replace(self.number(row), id="", e164="")
            named.append((row[0], row[1], places[rest]))
        return wire.Numbers(shared=tuple(self._made[rest] for rest in places), numbers=tuple(named))

    def trunk(self, row: Row) -> Trunk:
        config = row.config
        way = way_to(self._settings, row.mode, config["server"], config["transport"])
        if way.barred is not None:
            self._barred[row.id] = way.barred
        credentials = self._credentials(row)
        return Trunk(
            id=row.id,
            account_id=row.account_id,
            mode=row.mode,
            name=row.name,
            provider=row.provider,
            server=config["server"],
            port=config["port"],
            transport=config["transport"],
            next_hop=host_port(*way.next_hop) if way.next_hop else None,
            request_user=credentials.get("project_id"),
            username=credentials.get("username"),
            password=credentials.get("password"),
            allowed_addresses=self._allowed_addresses(row),
            is_open=config["is_open"],
            is_recorded=config["record"],
            announcement=msgspec.convert(config.get("recording_announcement"), Announcement | None),
            barred_reason=self._barred.get(row.id),
            country=config.get("country"),
            max_concurrent_calls=config.get("max_concurrent_calls"),
            max_calls_per_second=config.get("max_calls_per_second"),
            failover_trunk_ids=tuple(config.get("failover_trunk_ids", ())),
            ring_timeout_seconds=config.get("ring_timeout"),
            is_identity_asserted=config.get("asserted_identity", True),
            is_registered=config.get("register", False),
            media_encryption=config.get("media_encryption", "allowed"),
            codecs=tuple(config.get("codecs", ())),
        )

    def number(self, row: Row) -> Number:
        """Return the route of a number. What keeps its trunk's server from being dialled, the trunk says."""
        of_engine = self._of_engine[row.account_id, row.mode, row.engine]
        target = target_of(row.engine, row.engine_trunk_id, self._rows[row.trunk_id], of_engine)
        return Number(
            id=row.id,
            e164=row.e164,
            account_id=row.account_id,
            mode=row.mode,
            carrier_trunk_id=row.trunk_id,
            agent_trunk_id=None if isinstance(target, str) else target.id,
            disabled_reason=self._disabled_reason(row, target),
            agent_id=row.agent_id,
            first_message=row.first_message,
            language=row.language,
            max_duration_seconds=row.max_duration,
            ring_timeout_seconds=row.ring_timeout,
        )

    def _disabled_reason(self, row: Row, target: Row | str) -> str | None:
        if isinstance(target, str):
            return target
        if row.is_switched_off:
            return f"it was {row.status_reason}"
        if row.status == "inactive":
            return f"its provisioning failed: {row.status_reason}"
        return None if row.is_routed else "it has not been provisioned yet"

    def _credentials(self, row: Row) -> dict[str, str]:
        try:
            return open_credentials(self._sealer, row.id, row.sealed_credentials)
        except SealBrokenError:
            _log.error("credentials can't be opened", trunk_id=row.id)
            self._barred[row.id] = "the credentials of its trunk can't be opened any more; set them again"
            return {}

    def _allowed_addresses(self, row: Row) -> tuple[str, ...]:
        """Return who may call in; in test mode the sandbox's carrier may, always."""
        allowed = row.config["allowed_addresses"]
        is_sandboxed = row.mode == "test" and self._settings.sandbox
        return (*allowed, *([self._settings.sandbox_carrier_address] if is_sandboxed else []))

"""Provisioning numbers: durable, and safe to run again from any point.

The provider is asked first; then the number is routed, and the edges are waited for; only when every one of them
has the route is the number called active, because from then on its calls have to work.

A number that a provider is asked for has a job of its own, one at a time. Those that nobody is asked for are
provisioned by one job for all that were imported together.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from voxpria_server.auth.limits import Allowance, Window, count_imports
from voxpria_server.kit.clock import utc_now
from voxpria_server.kit.db import Database, Row
from voxpria_server.kit.jobs import Blueprint, JobContext, Retry
from voxpria_server.kit.logs import get_logger
from voxpria_server.kit.sealing import SealBrokenError, Sealer
from voxpria_server.numbers import bulk, queries, service
from voxpria_server.providers.base import NumberOrder, Provider, RefusedError, Taken, UnreachableError
from voxpria_server.providers.hosts import edge_address, way_to
from voxpria_server.settings import Settings
from voxpria_server.trunks.service import open_credentials
from voxpria_server.webhooks import outbox

blueprint = Blueprint()

_log = get_logger(__name__)
_RETRY = Retry((1, 3, 8, 20, 45))
_EDGE_WAIT_SECONDS = 10.0
_EDGE_PAUSE_SECONDS = 2.0
_NO_EDGE = timedelta(minutes=5)
"""How long a number is `provisioning` for want of an edge; `inactive` after it, until one comes."""
_NO_EDGE_PAUSE_SECONDS = 15.0
_RESUMED_AT_ONCE = 500
_IMPORTS_KEPT_DAYS = 30
_OURS = "an error on our side"


@dataclass(frozen=True)
class _Work:
    """What one run is to do: whom to ask, and for what."""

    provider: str
    order: NumberOrder
    trunk_updated_at: datetime


@blueprint.task(name=service.PROVISION_TASK, queue=service.PROVISION_QUEUE, pass_context=True, retry=_RETRY)
async def provision(context: JobContext, number_id: str) -> None:
    """Bring one number from `provisioning` to `active`, or to `inactive` with the reason."""
    parts = context.additional_context
    database: Database = parts["database"]
    try:
        async with database.transaction() as conn:
            work = await _load(conn, parts["settings"], parts["sealer"], number_id, is_first=not context.job.attempts)
        if work is None:
            _log.info("number needs no provisioning", number_id=number_id)
            return
        taken = await _ask(parts["providers"], work)
    except RefusedError as refusal:
        await _fail(database, [number_id], str(refusal))
        return
    except UnreachableError as error:
        if _RETRY.is_left(context.job):
            raise
        await _fail(database, [number_id], str(error))
        return
    except Exception:
        if not _RETRY.is_left(context.job):
            await _fail(database, [number_id], _OURS)
        raise
    async with database.transaction() as conn:
        values = {"is_routed": True, "provider_number_id": taken.provider_number_id}
        await queries.change_of_job(conn, [number_id], values)
    _log.info("number routed, asking the edges", number_id=number_id)
    await _take_to_edges(parts, {number_id: work.trunk_updated_at}, taken.remark)


@blueprint.task(name=service.ROUTE_TASK, queue=service.PROVISION_QUEUE, pass_context=True, retry=_RETRY)
async def route(context: JobContext, number_ids: list[str]) -> None:
    """Bring numbers of which no provider is asked from `provisioning` to `active`, or to `inactive` with the reason."""
    parts = context.additional_context
    database: Database = parts["database"]
    try:
        async with database.transaction() as conn:
            trunks = await queries.trunks_of_job(conn, number_ids)
            sealed = {trunk.id: trunk for trunk in trunks.values()}
            refused = {id_: why for id_, trunk in sealed.items() if (why := _refusal(parts["sealer"], trunk))}
            routed = {id_: trunk.updated_at for id_, trunk in trunks.items() if trunk.id not in refused}
            await queries.change_of_job(conn, routed, {"is_routed": True})
        for trunk_id, why in refused.items():
            await _fail(database, [id_ for id_, trunk in trunks.items() if trunk.id == trunk_id], why)
    except Exception:
        if not _RETRY.is_left(context.job):
            await _fail(database, number_ids, _OURS)
        raise
    if routed:
        _log.info("numbers routed, asking the edges", count=len(routed))
        await _take_to_edges(parts, routed)


@blueprint.task(
    name=service.AWAIT_EDGES_TASK,
    queue=service.PROVISION_QUEUE,
    pass_context=True,
    lock=service.AWAIT_EDGES_TASK,
    retry=Retry((1, 5, 15), forever=True),
)
async def await_edges(context: JobContext) -> None:
    """Wait, for all numbers that do, until the edges have what was routed; then go on with their provisioning."""
    parts = context.additional_context
    database: Database = parts["database"]
    is_live = await parts["wait_until_live"](_EDGE_WAIT_SECONDS)
    async with database.transaction() as conn:
        if is_live:
            resumed = await queries.resume_of_job(conn, _RESUMED_AT_ONCE)
            routed = [one.id for one in resumed if service.is_only_routed(one.mode, one.engine)]
            await service.start_routing(conn, routed)
            for one in resumed:
                if not service.is_only_routed(one.mode, one.engine):
                    await service.start_provisioning(conn, one.id)
        else:
            reason = "no edge has taken its route; it goes on by itself as soon as one does"
            given_up = await queries.give_up_of_job(conn, utc_now() - _NO_EDGE, reason, _RESUMED_AT_ONCE)
            _log.warning("no edge takes the routes of numbers", given_up=given_up)
        if (since := await queries.edge_awaited_since_of_job(conn)) is not None:
            is_long = utc_now() - since > _NO_EDGE
            pause = 0.0 if is_live else _NO_EDGE_PAUSE_SECONDS if is_long else _EDGE_PAUSE_SECONDS
            await service.await_edges(conn, delay_seconds=pause)


@blueprint.task(
    name=bulk.BULK_TASK, queue=bulk.BULK_QUEUE, pass_context=True, retry=Retry((1, 5, 20, 60), forever=True)
)
async def bulk_import(context: JobContext, import_id: str) -> None:
    """Import the rows of a queued import, until none is left or the account's imports of this minute are used up."""
    parts = context.additional_context
    database: Database = parts["database"]
    pace = _Pace(parts["settings"].imports_per_minute)
    while True:
        try:
            async with database.transaction() as conn:
                if not await bulk.import_next(conn, import_id, pace.of):
                    _log.info("bulk import completed", import_id=import_id)
                    return
        except bulk.LimitReachedError:
            async with database.transaction() as conn:
                await bulk.start(conn, import_id, delay_seconds=pace.seconds_left)
            return


class _Pace:
    """Counts the imports of the account that a row belongs to, and remembers how long the limit lasts."""

    def __init__(self, per_minute: int) -> None:
        self._per_minute = per_minute
        self.seconds_left = 0.0

    def of(self, row: Row) -> Allowance:
        return _Turn(self, row)

    async def count(self, conn: AsyncConnection, row: Row, count: int) -> Window:
        window = await count_imports(conn, row.account_id, row.mode, count, per_minute=self._per_minute)
        self.seconds_left = max(window.seconds_left, 1)
        return window


@dataclass(frozen=True)
class _Turn:
    """The allowance that one row of a queued import counts against."""

    pace: _Pace
    row: Row

    async def left(self, conn: AsyncConnection) -> int:
        return (await self.pace.count(conn, self.row, 0)).left

    async def count(self, conn: AsyncConnection, count: int) -> None:
        if (await self.pace.count(conn, self.row, count)).is_exceeded:
            raise bulk.LimitReachedError


@blueprint.periodic(cron="17 3 * * *")
@blueprint.task(name="numbers:purge-imports", queue="maintenance", pass_context=True)
async def purge_imports(context: JobContext, timestamp: int) -> None:
    """Forget the bulk imports that were completed 30 days ago; their numbers stay."""
    database: Database = context.additional_context["database"]
    async with database.transaction() as conn:
        count = await queries.purge_imports_of_job(conn, utc_now() - timedelta(days=_IMPORTS_KEPT_DAYS))
    _log.info("bulk imports purged", at=timestamp, count=count)


async def _load(
    conn: AsyncConnection, settings: Settings, sealer: Sealer, number_id: str, *, is_first: bool
) -> _Work | None:
    """Return the work, None if there is none; raise RefusedError if it can't be done."""
    number = await queries.find_of_job(conn, number_id)
    if number is None:
        return None
    owner = (number.account_id, number.mode)
    carrier = await queries.trunk_of_job(conn, *owner, number.trunk_id)
    if carrier is None:
        return None
    of_engine = await queries.trunks_of_engine(conn, *owner, number.engine) if number.engine else []
    target = service.choose_target(number, carrier, of_engine)
    if isinstance(target, str):
        raise RefusedError(target)
    way = way_to(settings, number.mode, target.config["server"], target.config["transport"])
    if way.barred is not None:
        raise RefusedError(way.barred)
    config = target.config
    order = NumberOrder(
        e164=number.e164,
        mode=number.mode,
        server=config["server"],
        transport=config["transport"],
        media_encryption=config["media_encryption"],
        codecs=config["codecs"],
        agent_id=await _agent_at_provider(conn, number),
        provider_number_id=number.provider_number_id,
        credentials=_credentials(sealer, target),
        is_trunk_provisioned=target.provisioned_at is not None,
        may_be_there=not is_first,
        edge=edge_address(settings, number.mode, config["transport"]) if target.id != carrier.id else None,
    )
    return _Work(provider=target.provider, order=order, trunk_updated_at=carrier.updated_at)


def _refusal(sealer: Sealer, trunk: Row) -> str | None:
    """Return why numbers on a trunk can't be put into service, if that is so."""
    try:
        _credentials(sealer, trunk)
    except RefusedError as refusal:
        return str(refusal)
    return None


def _credentials(sealer: Sealer, trunk: Row) -> dict[str, str]:
    try:
        return open_credentials(sealer, trunk.id, trunk.sealed_credentials)
    except SealBrokenError:
        raise RefusedError("the trunk's credentials can't be opened any more; set them again") from None


async def _agent_at_provider(conn: AsyncConnection, number: Row) -> str | None:
    """Return the provider's id of the number's agent: that of our agent, or the given one, taken as theirs."""
    if number.agent_id is None:
        return None
    owner = (number.account_id, number.mode)
    if await queries.our_agents(conn, *owner, [number.agent_id]):
        return await queries.agent_external_id(conn, *owner, number.agent_id)
    return str(number.agent_id)


async def _ask(providers: Mapping[str, Provider], work: _Work) -> Taken:
    return await providers[work.provider].provision(work.order)


async def _take_to_edges(parts: Mapping[str, Any], routed: Mapping[str, datetime], remark: str | None = None) -> None:
    """Have the edges take the routes of numbers, each given with when its trunk was changed last; wait for them.

    `remark`: what their provider had to say.
    """
    if await parts["has_edge"]() and await parts["wait_until_live"](_EDGE_WAIT_SECONDS):
        await _activate(parts["database"], routed, remark)
    else:
        await _await_edges(parts["database"], routed)


async def _activate(database: Database, routed: Mapping[str, datetime], remark: str | None) -> None:
    """Call numbers active and tell the customer, in one transaction. Who changed the trunk meanwhile starts anew."""
    values = {"status": "active", "status_reason": remark, "edge_awaited_since": None, "provisioned_at": utc_now()}
    async with database.transaction() as conn:
        trunks = await queries.trunks_of_job(conn, routed)
        outdated = {id_ for id_, trunk in trunks.items() if trunk.updated_at != routed[id_]}
        for ids, is_outdated in ((trunks.keys() - outdated, False), (outdated, True)):
            if ids:
                rows = await queries.change_of_job(conn, ids, values | {"needs_reprovision": is_outdated})
                await outbox.emit_all(conn, [_provisioned(row) for row in sorted(rows, key=lambda row: str(row.id))])


def _provisioned(row: Row) -> outbox.Happening:
    return outbox.Happening(row.account_id, row.mode, "number.provisioned", service.event_data(row), utc_now())


async def _fail(database: Database, number_ids: Collection[str], reason: str) -> None:
    for number_id in number_ids:
        _log.info("number not provisioned", number_id=number_id, reason=reason)
    values = {
        "status": "inactive",
        "status_reason": reason,
        "is_routed": False,
        "needs_reprovision": False,
        "edge_awaited_since": None,
    }
    async with database.transaction() as conn:
        await queries.change_of_job(conn, number_ids, values)


async def _await_edges(database: Database, number_ids: Collection[str]) -> None:
    """Say that the edges have not got the routes yet; one job waits for them, for all numbers that do."""
    values = {"status_reason": "waiting for the edge to take the route", "edge_awaited_since": utc_now()}
    async with database.transaction() as conn:
        if await queries.change_of_job(conn, number_ids, values):
            await service.await_edges(conn, delay_seconds=0)

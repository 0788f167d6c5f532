"""The rules for phone numbers."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import asyncpg
import phonenumbers
from sqlalchemy.ext.asyncio import AsyncConnection

from voxpria_server.agents import queries as agent_queries
from voxpria_server.agents import service as agents
from voxpria_server.auth.limits import Allowance, ImportAllowance
from voxpria_server.auth.service import Caller
from voxpria_server.errors import (
    ApiError,
    ConflictError,
    InvalidNumberError,
    InvalidParameterError,
    NotFoundError,
    unkeepable,
)
from voxpria_server.kit import jobs
from voxpria_server.kit.clock import iso, utc_now
from voxpria_server.kit.db import Database, Row
from voxpria_server.kit.ids import new_id
from voxpria_server.numbers import queries
from voxpria_server.numbers.schemas import NumberConfig, NumberImport, NumberUpdate
from voxpria_server.trunks import queries as trunk_queries

PROVISION_TASK = "numbers:provision"
ROUTE_TASK = "numbers:route"
AWAIT_EDGES_TASK = "numbers:await-edges"
PROVISION_QUEUE = "provisioning"

_E164 = re.compile(r"\+[1-9][0-9]{6,14}")
_SANDBOX_PREFIX = "+1555555"
_SWITCHED_OFF = {
    "status": "inactive",
    "status_reason": "switched off through the API",
    "is_switched_off": True,
    "is_routed": False,
    "needs_reprovision": False,
    "edge_awaited_since": None,
}


@dataclass(frozen=True)
class Imported:
    """A number that was added."""

    id: str
    e164: str
    trunk_id: str
    engine: str | None
    agent_id: str | None
    config: dict[str, Any]
    created_at: datetime
    status: str = "provisioning"
    status_reason: None = None


async def import_numbers(
    conn: AsyncConnection, caller: Caller, bodies: Sequence[NumberImport], allowance: Allowance
) -> list[Imported | ApiError | None]:
    """Add and count numbers; return for each the number, why it can't be had, or None: no import is left for it.

    Each is judged as if those before it were there. What needs nobody's consent (a generic trunk) starts to be
    provisioned at once. What can be known before is looked up before the account's turn, which others wait for.
    """
    trunks = await queries.trunks_to_use(conn, caller, {id_ for body in bodies for id_ in _trunks_named(body)})
    agents, now = await _agents_named(conn, caller, bodies), utc_now()
    judged = [_judge(caller, body, trunks, agents, now) for body in bodies]
    wanted = {one.e164 for one in judged if isinstance(one, Imported)}
    left = await allowance.left(conn)
    taken = await queries.imported(conn, caller, wanted) if len(wanted) > left else set()
    fresh: list[Imported] = []
    outcomes: list[Imported | ApiError | None] = []
    for one in judged:
        if isinstance(one, ApiError):
            outcomes.append(one)
        elif one.e164 in taken:
            outcomes.append(_exists(one))
        elif len(fresh) == left:
            outcomes.append(None)
        else:
            taken.add(one.e164)
            fresh.append(one)
            outcomes.append(one)
    added = await queries.add(conn, caller, [asdict(number) for number in fresh], now) if fresh else set()
    ready = [one for one in await _ready(conn, caller, fresh, trunks) if one.id in added]
    await start_routing(conn, [one.id for one in ready if is_only_routed(caller.mode, one.engine)])
    started = [one.id for one in ready if not is_only_routed(caller.mode, one.engine)]
    if started:
        await jobs.defer_many(
            conn, PROVISION_TASK, [{"number_id": one} for one in started], queue=PROVISION_QUEUE, locks=started
        )
    await allowance.count(conn, len(added))
    return [_exists(one) if isinstance(one, Imported) and one.id not in added else one for one in outcomes]


async def import_number(
    conn: AsyncConnection, caller: Caller, body: NumberImport, imports: ImportAllowance
) -> Imported:
    """Add and count a number, as `import_numbers` does; raise why it can't be had."""
    (outcome,) = await import_numbers(conn, caller, [body], imports)
    match outcome:
        case Imported():
            return outcome
        case ApiError():
            raise outcome
        case None:
            raise imports.refusal


def _trunks_named(body: NumberImport) -> list[str]:
    return [body.trunk_id, *filter(None, [body.config.engine_trunk_id])]


async def _agents_named(conn: AsyncConnection, caller: Caller, bodies: Iterable[NumberImport]) -> set[str]:
    """Return which of the agents that are named are ours."""
    ids = {body.agent_id for body in bodies if body.agent_id is not None}
    return await queries.our_agents(conn, caller.account_id, caller.mode, ids) if ids else set()


def _judge(
    caller: Caller, body: NumberImport, trunks: Mapping[str, Row], agents: Collection[str], now: datetime
) -> Imported | ApiError:
    """Return the number that a body asks for, or why it can't be had."""
    try:
        e164 = check_e164(body.phone_number, caller.mode)
        trunk = _named(trunks, body.trunk_id)
        engine = _engine(trunk.provider, body.engine)
        _check_agent(agents, engine, body.agent_id)
        _check_engine_trunk(trunks, trunk.provider, engine, body.config)
        if "\0" in (body.config.first_message or ""):
            raise unkeepable("config.first_message")
    except ApiError as refusal:
        return refusal
    return Imported(new_id("phone"), e164, trunk.id, engine, body.agent_id, body.config.model_dump(), now)


async def _ready(
    conn: AsyncConnection, caller: Caller, numbers: Sequence[Imported], trunks: Mapping[str, Row]
) -> list[Imported]:
    """Return those that need nobody's consent: without an engine, or on an OpenAI trunk that is provisioned."""
    ready = [number for number in numbers if number.engine is None]
    of_openai = [number for number in numbers if number.engine == "openai"]
    if not of_openai:
        return ready
    all_of_it = await queries.trunks_of_engine(conn, caller.account_id, caller.mode, "openai")
    for number in of_openai:
        target = target_of("openai", number.config["engine_trunk_id"], trunks[number.trunk_id], all_of_it)
        if not isinstance(target, str) and target.provisioned_at is not None:
            ready.append(number)
    return ready


def _exists(number: Imported) -> ConflictError:
    return ConflictError(
        "This number is imported already.",
        code="phone_number_exists",
        details={"field": "phone_number", "provided": number.e164},
    )


async def get(conn: AsyncConnection, caller: Caller, number_id: str, *, lock: bool = False) -> Row:
    """Return a number; raise 404 phone_not_found."""
    return _found(await queries.find(conn, caller, number_id, lock=lock))


async def find_to_call_from(conn: AsyncConnection, caller: Caller, given: str) -> Row:
    """Return a number by its id or as it is dialled; raise 400 invalid_phone_number, 404 phone_not_found."""
    if given.startswith("phone_"):
        row = await queries.find(conn, caller, given)
    else:
        row = await queries.find_e164(conn, caller, check_e164(given, caller.mode, "from"))
    if row is None:
        raise _not_found({"field": "from", "provided": given})
    return row


async def agent_trunk_of(conn: AsyncConnection, number: Row) -> Row | str:
    """Return the trunk that a number's calls go to, or why there is none."""
    carrier = await queries.trunk_of_job(conn, number.account_id, number.mode, number.trunk_id)
    if carrier is None:
        return "its trunk is gone"
    of_engine = await queries.trunks_of_engine(conn, number.account_id, number.mode, number.engine)
    return choose_target(number, carrier, of_engine)


async def get_full(database: Database, caller: Caller, number_id: str) -> asyncpg.Record:
    """Return a number in full; raise 404 phone_not_found."""
    row = await queries.find_full(database, caller, number_id)
    if row is None:
        raise _not_found()
    return row


async def update(conn: AsyncConnection, caller: Caller, number_id: str, body: NumberUpdate) -> Row:
    """Change agent and config, and switch the number off or on.

    A provider that answers with its own agent has to be told of another, so the number says so.
    """
    row = await get(conn, caller, number_id, lock=True)
    values: dict[str, Any] = {"updated_at": utc_now()}
    if "agent_id" in body.model_fields_set:
        await check_agent(conn, caller, row.engine, body.agent_id)
        values["agent_id"] = body.agent_id
        is_told_by_us = row.engine == "elevenlabs" and row.provisioned_at is not None
        values["needs_reprovision"] = row.needs_reprovision or (is_told_by_us and body.agent_id != row.agent_id)
    if body.config is not None and body.config.model_fields_set:
        carrier = await _trunk(conn, caller, row.trunk_id)
        named = await trunk_queries.find(conn, caller, body.config.engine_trunk_id or carrier.id)
        _check_engine_trunk({named.id: named} if named else {}, carrier.provider, row.engine, body.config)
        values["config"] = row.config | body.config.model_dump(exclude_unset=True)
    if body.status == "inactive":
        values |= _SWITCHED_OFF
    row = await queries.update(conn, row.id, values)
    return await _provision(conn, row) if body.status == "active" and row.status != "active" else row


async def delete(conn: AsyncConnection, caller: Caller, number_id: str) -> None:
    """Remove a number here; the provider is not told."""
    if not await queries.delete(conn, caller, number_id):
        raise _not_found()


async def delete_agent(conn: AsyncConnection, caller: Caller, agent_id: str, *, force: bool) -> None:
    """Remove an agent; one that answers numbers only if `force`, which leaves them without an agent."""
    await agents.get(conn, caller, agent_id, lock=True)
    count = await queries.count_of_agent(conn, caller, agent_id)
    if count and not force:
        raise ConflictError(
            "This agent answers phone numbers; give them another one, or delete with ?force=true.",
            code="agent_in_use",
            details={"phone_numbers": count},
        )
    await queries.unassign_agent(conn, caller, agent_id, utc_now())
    await agent_queries.delete(conn, agent_id)


async def request_provisioning(conn: AsyncConnection, caller: Caller, number_id: str) -> Row:
    """Have a number provisioned, unless it is and stays so; returns it as it now is."""
    row = await get(conn, caller, number_id, lock=True)
    if row.engine == "openai":
        raise InvalidParameterError(
            "An OpenAI number becomes active with its trunk: POST /v1/sip/trunks/{trunk_id}/provision.",
            field="phone_id",
            provided=number_id,
        )
    if row.status == "active" and not row.needs_reprovision:
        if row.status_reason is None:
            return row
        row = await queries.update(
            conn, row.id, {"needs_reprovision": True}
        )  # to see whether what it tells still holds
    return await _provision(conn, row)


async def _provision(conn: AsyncConnection, row: Row) -> Row:
    """Have a number provisioned, which switches it on."""
    if row.status == "inactive":
        values = {"status": "provisioning", "status_reason": None, "is_switched_off": False, "updated_at": utc_now()}
        row = await queries.update(conn, row.id, values)
    await start_provisioning(conn, row.id)
    return row


async def request_provisioning_of_all(conn: AsyncConnection, caller: Caller, trunk_id: str) -> list[str]:
    """Have every number on a trunk provisioned anew, but those switched off; return their ids."""
    trunk = await _trunk(conn, caller, trunk_id)
    ids = await queries.restart_all(conn, caller, trunk, utc_now())
    for number_id in ids:
        await start_provisioning(conn, number_id)
    return ids


def is_only_routed(mode: str, engine: str | None) -> bool:
    """Tell whether no provider need be asked for a number: it is its own carrier's alone, and of no sandbox."""
    return engine is None and mode == "live"


async def start_routing(conn: AsyncConnection, number_ids: Sequence[str]) -> None:
    """Defer one job that provisions all these numbers, which `is_only_routed` is true of."""
    if number_ids:
        await jobs.defer(conn, ROUTE_TASK, {"number_ids": list(number_ids)}, queue=PROVISION_QUEUE)


async def start_provisioning(conn: AsyncConnection, number_id: str, *, delay_seconds: float = 0) -> None:
    """Defer the job, once: one number is provisioned by one job at a time."""
    await jobs.defer(
        conn,
        PROVISION_TASK,
        {"number_id": number_id},
        queue=PROVISION_QUEUE,
        lock=number_id,
        queueing_lock=number_id,
        delay_seconds=delay_seconds,
    )


async def await_edges(conn: AsyncConnection, *, delay_seconds: float) -> None:
    """Defer the one job that waits for the edges, for all numbers that do, unless it is to run anyway."""
    await jobs.defer(
        conn,
        AWAIT_EDGES_TASK,
        {},
        queue=PROVISION_QUEUE,
        lock=AWAIT_EDGES_TASK,
        queueing_lock=AWAIT_EDGES_TASK,
        delay_seconds=delay_seconds,
    )


async def count_calls(conn: AsyncConnection, ended: Iterable[tuple[str, int, datetime]]) -> None:
    """Count ended calls: their number's id, seconds of talk, and time; within the transaction that ends them.

    A deleted number counts nothing.
    """
    sums: dict[str, tuple[int, int, datetime]] = {}
    for number_id, talk_seconds, at in ended:
        count, seconds, latest = sums.get(number_id, (0, 0, at))
        sums[number_id] = count + 1, seconds + talk_seconds, max(latest, at)
    if sums:
        await queries.count_calls(conn, [(number_id, *summed) for number_id, summed in sums.items()])


def check_e164(text: str, mode: str, field: str = "phone_number") -> str:
    """Return `text` if it is an E.164 number that its country could have; raise 400 invalid_phone_number."""
    if not _E164.fullmatch(text):
        raise InvalidNumberError(
            "Phone number must be in E.164 format: + and 7 to 15 digits, as +12125551234.",
            field=field,
            provided=text,
        )
    if mode == "test" and text.startswith(_SANDBOX_PREFIX):
        return text
    try:
        is_possible = phonenumbers.is_possible_number(phonenumbers.parse(text))
    except phonenumbers.NumberParseException:
        is_possible = False
    if not is_possible:
        raise InvalidNumberError("Phone number is not possible in its country.", field=field, provided=text)
    return text


def choose_target(number: Row, carrier: Row, of_engine: Sequence[Row]) -> Row | str:
    """Return the trunk that takes a number's calls, out of the account's trunks of its engine; or why there is none."""
    return target_of(number.engine, number.config.get("engine_trunk_id"), carrier, of_engine)


def target_of(engine: str | None, named: str | None, carrier: Row, of_engine: Sequence[Row]) -> Row | str:
    """Return what `choose_target` does, for a number of this engine that may name its trunk."""
    if engine is None or engine == carrier.provider:
        return carrier
    candidates = [trunk for trunk in of_engine if named in (None, trunk.id)]
    match candidates:
        case [trunk]:
            return trunk
        case []:
            return f"this account has no {engine} trunk" if named is None else f"its trunk {named} is gone"
        case _:
            return f"this account has several {engine} trunks and config.engine_trunk_id names none of them"


def event_data(row: Row) -> dict[str, Any]:
    """Return what `number.provisioned` says."""
    return {
        "phone_number_id": row.id,
        "phone_number": row.e164,
        "trunk_id": row.trunk_id,
        "engine": row.engine,
        "agent_id": row.agent_id,
        "status": row.status,
        "provisioned_at": iso(row.provisioned_at),
    }


def _engine(provider: str, wanted: str | None) -> str | None:
    """Return the number's engine: the trunk's own; on a generic trunk any, or none."""
    if provider == "generic":
        return wanted
    if wanted is not None and wanted != provider:
        message = f"This trunk is an {provider} trunk; only a generic trunk takes numbers of any engine."
        raise InvalidParameterError(message, field="engine", provided=wanted)
    return provider


async def check_agent(conn: AsyncConnection, caller: Caller, engine: str | None, agent_id: str | None) -> None:
    """Raise 404 agent_not_found, unless it may be an agent at ElevenLabs: those can't be known here."""
    if agent_id is not None and engine != "elevenlabs":
        ours = await queries.our_agents(conn, caller.account_id, caller.mode, [agent_id])
        _check_agent(ours, engine, agent_id)


def _check_agent(ours: Collection[str], engine: str | None, agent_id: str | None) -> None:
    if agent_id is None or engine == "elevenlabs" or agent_id in ours:
        return
    raise NotFoundError(
        "There is no agent with this id.",
        code="agent_not_found",
        details={"field": "agent_id", "provided": agent_id},
    )


def _check_engine_trunk(trunks: Mapping[str, Row], provider: str, engine: str | None, config: NumberConfig) -> None:
    if config.engine_trunk_id is None:
        return
    if provider != "generic" or engine is None:
        raise InvalidParameterError(
            "Only a number of an engine on a generic trunk has an engine trunk.", field="config.engine_trunk_id"
        )
    if _named(trunks, config.engine_trunk_id, "config.engine_trunk_id").provider != engine:
        raise InvalidParameterError(
            "The engine trunk is of another provider than the number's engine.",
            field="config.engine_trunk_id",
            provided=config.engine_trunk_id,
        )


async def _trunk(conn: AsyncConnection, caller: Caller, trunk_id: str) -> Row:
    trunk = await trunk_queries.find(conn, caller, trunk_id)
    return _named({} if trunk is None else {trunk.id: trunk}, trunk_id)


def _named(trunks: Mapping[str, Row], trunk_id: str, field: str = "trunk_id") -> Row:
    trunk = trunks.get(trunk_id)
    if trunk is None:
        raise NotFoundError(
            "There is no trunk with this id.",
            code="trunk_not_found",
            details={"field": field, "provided": trunk_id},
        )
    return trunk


def _found(row: Row | None) -> Row:
    if row is None:
        raise _not_found()
    return row


def _not_found(details: Mapping[str, str] | None = None) -> NotFoundError:
    return NotFoundError("There is no such phone number.", code="phone_not_found", details=details)

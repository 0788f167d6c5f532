"""The rules for trunks.

Asking a trunk's server takes seconds, so it is done before the transaction, never within.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection
from voxpria_routing.edge_api import TrunkNews

from voxpria_server.auth.service import Caller
from voxpria_server.errors import (
    ConflictError,
    InvalidCredentialsError,
    InvalidParameterError,
    MissingFieldError,
    NotFoundError,
    ProvisioningFailedError,
)
from voxpria_server.kit.clock import iso, utc_now
from voxpria_server.kit.db import Database, RequestDatabase, Row
from voxpria_server.kit.ids import new_id
from voxpria_server.kit.jobs import defer
from voxpria_server.kit.sealing import SealBrokenError, Sealer
from voxpria_server.providers import doctor, sip
from voxpria_server.providers.base import RefusedError, UnreachableError
from voxpria_server.providers.doctor import Step
from voxpria_server.providers.openai import Armed, OpenAI, Project
from voxpria_server.settings import Settings
from voxpria_server.trunks import health, queries
from voxpria_server.trunks.schemas import (
    TrunkCreate,
    TrunkUpdate,
    merge_config,
    parse_config,
    parse_credentials,
    registration,
)
from voxpria_server.webhooks import outbox

DISARM = "trunks:disarm"
QUEUE = "provisioning"
_PROVISIONED_AT_ONCE = 5


@dataclass(frozen=True)
class Trunks:
    """What the rules need of the process."""

    settings: Settings
    database: Database | RequestDatabase
    sealer: Sealer


@dataclass(frozen=True)
class _Wanted:
    """What a trunk is connected by."""

    config: dict[str, Any]
    credentials: dict[str, str] = field(repr=False)


async def create(parts: Trunks, caller: Caller, body: TrunkCreate) -> Row:
    """Add a trunk, unless its server refuses the credentials; one that can't be reached is no error."""
    credentials = parse_credentials(body.provider, body.credentials)
    # recording is off in live mode unless asked for; the sandbox shows what a recording is
    config = parse_config(body.provider, {"record": caller.mode == "test", **body.config})
    _check_register(config, credentials)
    trunk_id = new_id("trunk")
    async with parts.database.read() as conn:  # what can be known at once is said before the server is asked
        await _check_name(conn, caller, body.name)
        await _check_failovers(conn, caller, config, trunk_id)
    found = await health.check(parts.settings, caller.mode, body.provider, config, credentials)
    _refuse_if_rejected(found, credentials)
    now = utc_now()
    values = {
        "id": trunk_id,
        "account_id": caller.account_id,
        "mode": caller.mode,
        "name": body.name,
        "provider": body.provider,
        "status": "active",
        "sealed_credentials": _seal(parts.sealer, trunk_id, credentials),
        "config": config,
        **health.record(found, failures_before=0),
        "created_at": now,
        "updated_at": now,
    }
    async with parts.database.transaction() as conn:
        await _check_failovers(conn, caller, config, trunk_id)
        row = await queries.add(conn, values)
    if row is None:
        raise _name_exists(body.name)
    return row


async def update(parts: Trunks, caller: Caller, trunk_id: str, body: TrunkUpdate) -> Row:
    """Change a trunk; its server is asked again if credentials or config changed."""
    async with parts.database.read() as conn:
        before = await get(conn, caller, trunk_id)
        wanted = _merged(parts.sealer, before, body)
        is_changed = wanted != _as_it_is(parts.sealer, before)
        if body.name is not None and body.name != before.name:
            await _check_name(conn, caller, body.name)
        if is_changed:
            await _check_failovers(conn, caller, wanted.config, trunk_id)
    found = None
    if is_changed:
        found = await health.check(parts.settings, caller.mode, before.provider, wanted.config, wanted.credentials)
        if body.credentials is not None:
            _refuse_if_rejected(found, wanted.credentials)
    async with parts.database.transaction() as conn:
        row = await get(conn, caller, trunk_id, lock=True)
        return await _store(parts.sealer, conn, caller, row, body, found)


async def _store(
    sealer: Sealer, conn: AsyncConnection, caller: Caller, row: Row, body: TrunkUpdate, found: sip.Verdict | None
) -> Row:
    """Merge once more, now that the row is locked: another change may have come between."""
    wanted = _merged(sealer, row, body)
    is_changed = wanted != _as_it_is(sealer, row)
    values: dict[str, Any] = {"name": body.name or row.name, "updated_at": utc_now()}
    has_left = is_changed and _project(row, wanted) != project_of(sealer, row)
    if has_left:  # the project that it is in now knows nothing of us yet
        values |= {"provisioned_at": None, "sealed_hook_secret": None}
    if is_changed:
        await _check_failovers(conn, caller, wanted.config, row.id)
        values |= {"config": wanted.config, "sealed_credentials": _seal(sealer, row.id, wanted.credentials)}
        await queries.mark_numbers(conn, row)
    if found is not None:
        values |= health.record(found, failures_before=0)
    changed = await queries.update(conn, row.id, values)
    if changed is None:
        raise _name_exists(values["name"])
    if has_left:
        await _leave_project(conn, row)
    if is_changed:
        await outbox.emit(conn, row.account_id, row.mode, "trunk.updated", _event_data(changed))
    return changed


async def get(conn: AsyncConnection, caller: Caller, trunk_id: str, *, lock: bool = False) -> Row:
    """Return a trunk; raise 404 trunk_not_found."""
    row = await queries.find(conn, caller, trunk_id, lock=lock)
    if row is None:
        raise _not_found()
    return row


async def read(database: Database, caller: Caller, trunk_id: str) -> asyncpg.Record:
    """Return a trunk in full, beside any transaction; raise 404 trunk_not_found."""
    row = await queries.read(database, caller, trunk_id)
    if row is None:
        raise _not_found()
    return row


def _not_found() -> NotFoundError:
    return NotFoundError("There is no trunk with this id.", code="trunk_not_found")


async def delete(conn: AsyncConnection, caller: Caller, trunk_id: str, *, force: bool) -> None:
    """Remove a trunk and its numbers; with active ones only if `force`. Call logs stay."""
    row = await get(conn, caller, trunk_id, lock=True)
    if not force and await queries.has_active_numbers(conn, trunk_id):
        raise ConflictError(
            "This trunk has active phone numbers; remove them first, or delete with ?force=true.",
            code="trunk_has_active_numbers",
        )
    await queries.forget_failover(conn, caller, trunk_id)
    await queries.delete(conn, trunk_id)
    await _leave_project(conn, row)


async def test(parts: Trunks, caller: Caller, trunk_id: str) -> list[Step]:
    """Examine a trunk's server; what was found is its health from then on."""
    async with parts.database.read() as conn:
        row = await get(conn, caller, trunk_id)
    wanted = _as_it_is(parts.sealer, row)
    credentials = wanted.credentials if wanted is not None else {}
    steps = await health.examine(parts.settings, caller.mode, row.provider, row.config, credentials)
    if row.config["register"]:
        async with parts.database.read() as conn:
            steps.append(_registered(await queries.registrations(conn, caller, row.id)))
    values = health.record(doctor.verdict_of(steps), failures_before=row.health_failures)
    async with parts.database.transaction() as conn:
        await queries.set_health(conn, row.id, row.updated_at, values)
    return steps


async def take_news(conn: AsyncConnection, news: TrunkNews) -> None:
    """Keep what an edge tells of trunks: whosever they are, it serves them all."""
    found = [msgspec.structs.asdict(report) for report in sorted(news.reports, key=lambda report: report.trunk_id)]
    if found:
        await queries.set_found_of_edge(conn, news.edge_id, found)
    for trunk_id, state in sorted(news.registrations.items()):
        if state is None:
            await queries.forget_registration_of_edge(conn, news.edge_id, trunk_id)
        else:
            await queries.set_registration_of_edge(conn, news.edge_id, trunk_id, msgspec.structs.asdict(state))


async def provision(parts: Trunks, openai: OpenAI, caller: Caller, trunk_id: str) -> Armed:
    """Provision an OpenAI trunk: check key and project, and have its calls told to our webhook. Safe to do again.

    Where two do so at once, one may have rolled the secret that the other is about to keep: who comes second rolls it
    once more.
    """
    is_contested = False
    for _ in range(_PROVISIONED_AT_ONCE):
        async with parts.database.read() as conn:
            row = await get(conn, caller, trunk_id)
        armed = await _arm(parts, openai, caller, row, is_secret_known=not is_contested)
        values: dict[str, Any] = {"provisioned_at": utc_now()}
        if armed.signing_secret is not None:
            values["sealed_hook_secret"] = parts.sealer.seal(armed.signing_secret.encode(), _hook_context(row.id))
        async with parts.database.transaction() as conn:
            locked = await get(conn, caller, trunk_id, lock=True)
            if locked.sealed_credentials != row.sealed_credentials:
                raise _not_provisioned("the trunk's credentials were changed meanwhile; provision it again")
            is_contested = armed.signing_secret is not None and locked.sealed_hook_secret != row.sealed_hook_secret
            if not is_contested:
                await queries.update(conn, row.id, values)
                return armed
    raise _not_provisioned("the trunk is being provisioned by others at once; do it again")


async def _arm(parts: Trunks, openai: OpenAI, caller: Caller, row: Row, *, is_secret_known: bool) -> Armed:
    if row.provider != "openai":
        raise InvalidParameterError("Only OpenAI trunks are provisioned as a whole.", field="trunk_id", provided=row.id)
    now_is = _as_it_is(parts.sealer, row)
    if now_is is None:
        raise _not_provisioned("the trunk's credentials can't be opened any more; set them again")
    project = Project.of(caller.mode, now_is.config["server"], now_is.credentials)
    is_known = is_secret_known and row.sealed_hook_secret is not None
    try:
        return await openai.arm(project, webhook_url(parts.settings, row.id), is_secret_known=is_known)
    except (RefusedError, UnreachableError) as refusal:
        raise _not_provisioned(str(refusal)) from None


def _registered(registrations: Sequence[Row]) -> Step:
    """Return the doctor's step about the edges' registrations: each edge needs its own."""
    shown = [registration(row) for row in registrations]
    wrong = next((one for one in shown if one.status != "registered"), None)
    if not shown:
        mend = "Look at /readyz whether an edge runs; it registers by itself."
        return Step("register", "failed", "no edge has registered with the server yet", mend)
    if wrong is None:
        return Step("register", "ok", "; ".join(f"{one.edge_id} is registered until {one.expires_at}" for one in shown))
    why = wrong.detail or "it has not been answered yet"
    return Step("register", "failed", f"{wrong.edge_id} is not registered: {why}", wrong.mend or "Wait a moment.")


async def _leave_project(conn: AsyncConnection, row: Row) -> None:
    """Have the webhook that we made at OpenAI removed, as a trunk is gone from the project or altogether.

    Its credentials go along as they are kept, sealed: once it is done with, nothing of them is left.
    """
    if row.provider == "openai" and row.provisioned_at is not None:
        sealed = base64.b64encode(row.sealed_credentials).decode()
        server = row.config["server"]
        named = {"trunk_id": row.id, "mode": row.mode, "sealed_credentials": sealed, "server": server}
        await defer(conn, DISARM, named, queue=QUEUE)


def project_of(sealer: Sealer, row: Row) -> Project | None:
    """Return the OpenAI project that a trunk is in; None if it is in none, or that can't be told any more."""
    before = _as_it_is(sealer, row)
    return None if before is None else _project(row, before)


def _project(row: Row, wanted: _Wanted) -> Project | None:
    if row.provider != "openai":
        return None
    return Project.of(row.mode, wanted.config["server"], wanted.credentials)


def webhook_url(settings: Settings, trunk_id: str) -> str:
    """Return where OpenAI tells us of a trunk's calls."""
    return f"{settings.public_url}/hooks/openai/{trunk_id}"


def hook_secrets(sealer: Sealer, row: Row) -> list[str]:
    """Return the secrets that an OpenAI trunk's events may be signed with; raise SealBrokenError.

    OpenAI's own for the webhook that we made there, and the owner's, who may have made it by hand.
    """
    owners = open_credentials(sealer, row.id, row.sealed_credentials)["webhook_secret"]
    if row.sealed_hook_secret is None:
        return [owners]
    return [sealer.open(row.sealed_hook_secret, _hook_context(row.id)).decode(), owners]


def open_credentials(sealer: Sealer, trunk_id: str, sealed: bytes) -> dict[str, str]:
    """Return a trunk's credentials in clear; raise SealBrokenError."""
    credentials: dict[str, str] = json.loads(sealer.open(sealed, trunk_id))
    return credentials


def _hook_context(trunk_id: str) -> str:
    return f"{trunk_id}:hook"


def _not_provisioned(reason: str) -> ProvisioningFailedError:
    details = {"provider": "openai", "reason": reason}
    return ProvisioningFailedError("The trunk could not be provisioned.", details=details)


def _event_data(row: Row) -> dict[str, Any]:
    """Return what `trunk.updated` says."""
    return {
        "trunk_id": row.id,
        "name": row.name,
        "provider": row.provider,
        "status": row.status,
        "updated_at": iso(row.updated_at),
    }


async def _check_name(conn: AsyncConnection, caller: Caller, name: str) -> None:
    """Raise 409 trunk_name_exists."""
    if await queries.is_name_taken(conn, caller, name):
        raise _name_exists(name)


async def _check_failovers(conn: AsyncConnection, caller: Caller, config: Mapping[str, Any], trunk_id: str) -> None:
    """Raise 404 trunk_not_found for a trunk that is not the caller's, 400 for the trunk itself."""
    wanted: list[str] = config["failover_trunk_ids"]
    if trunk_id in wanted:
        raise InvalidParameterError(
            "A trunk is not its own failover.", field="config.failover_trunk_ids", provided=trunk_id
        )
    missing = set(wanted) - await queries.hold(conn, caller, wanted)
    if missing:
        raise NotFoundError(
            "There is no trunk with this id.",
            code="trunk_not_found",
            details={"field": "config.failover_trunk_ids", "provided": min(missing)},
        )


def _check_register(config: Mapping[str, Any], credentials: Mapping[str, str]) -> None:
    if config["register"] and "username" not in credentials:
        raise MissingFieldError(
            "credentials.username is required to register with the server.", field="credentials.username"
        )


def _refuse_if_rejected(found: sip.Verdict, credentials: Mapping[str, str]) -> None:
    if found.status == "auth_failed" and "username" in credentials:
        raise InvalidCredentialsError(f"The SIP server {found.detail}.", field="credentials")


def _as_it_is(sealer: Sealer, row: Row) -> _Wanted | None:
    """Return what the trunk is connected by; None if its credentials can't be opened."""
    try:
        return _Wanted(row.config, open_credentials(sealer, row.id, row.sealed_credentials))
    except SealBrokenError:
        return None


def _merged(sealer: Sealer, row: Row, body: TrunkUpdate) -> _Wanted:
    before = _as_it_is(sealer, row)
    if before is None and body.credentials is None:
        raise MissingFieldError("The credentials can't be opened any more; send them anew.", field="credentials")
    kept = before.credentials if before is not None else {}
    wanted = _Wanted(
        merge_config(row.provider, row.config, body.config or {}),
        parse_credentials(row.provider, kept | (body.credentials or {})),
    )
    _check_register(wanted.config, wanted.credentials)
    return wanted


def _seal(sealer: Sealer, trunk_id: str, credentials: Mapping[str, str]) -> bytes:
    return sealer.seal(json.dumps(dict(credentials)).encode(), trunk_id)


def _name_exists(name: str) -> ConflictError:
    details = {"field": "name", "provided": name}
    return ConflictError("A trunk of this name exists already.", code="trunk_name_exists", details=details)

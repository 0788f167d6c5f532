"""/v1/phone-numbers, and what concerns the numbers of a trunk or an agent."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Query, Request, Response
from sqlalchemy.ext.asyncio import AsyncConnection

from voxpria_server.agents.schemas import Engine
from voxpria_server.auth.limits import Imports
from voxpria_server.auth.route import KeyedRoute
from voxpria_server.auth.service import Caller, require
from voxpria_server.errors import InvalidParameterError, ProvisioningFailedError, raises
from voxpria_server.kit.answers import Done, encode
from voxpria_server.kit.clock import iso, utc_now
from voxpria_server.kit.db import Connection, Database, DatabasePart, RequestDatabase, RequestDatabasePart, Row
from voxpria_server.kit.pagination import Listing, Page
from voxpria_server.kit.parts import part
from voxpria_server.kit.sealing import SealerPart
from voxpria_server.numbers import bulk, names, queries, schemas, service
from voxpria_server.numbers.importer import Importer
from voxpria_server.trunks import service as trunk_service
from voxpria_server.trunks.endpoints import PartsAtOnce
from voxpria_server.trunks.schemas import TrunkProvisioned

T = TypeVar("T")

router = APIRouter(prefix="/phone-numbers", tags=["Phone numbers"], route_class=KeyedRoute)
trunk_router = APIRouter(prefix="/sip/trunks", tags=["SIP trunks"], route_class=KeyedRoute)
agent_router = APIRouter(prefix="/agents", tags=["Agents"], route_class=KeyedRoute)
Reader = Annotated[Caller, Depends(require("numbers:read"))]
Writer = Annotated[Caller, Depends(require("numbers:write"))]
TrunkWriter = Annotated[Caller, Depends(require("trunks:write"))]


ImporterPart = Annotated[Importer, Depends(part("importer"))]
ProvidersPart = Annotated[Mapping[str, Any], Depends(part("providers"))]


async def _batch(
    request: Request,
    trunk_id: Annotated[str | None, Query(description="With CSV: the trunk of rows that name none.")] = None,
    engine: Annotated[Engine | None, Query(description="With CSV: the engine of rows that name none.")] = None,
    queue: Annotated[bool, Query(description="With CSV: import in the background.")] = False,  # noqa: FBT002
    dry_run: Annotated[bool, Query(description="With CSV: judge every row, import none.")] = False,  # noqa: FBT002
) -> schemas.BulkImport:
    """Return the batch in the body, JSON or CSV."""
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    match kind:
        case "application/json":
            return bulk.parse_json(await request.body())
        case "text/csv":
            shared = {"trunk_id": trunk_id, "engine": engine, "queue": queue, "dry_run": dry_run}
            return bulk.parse_csv(await request.body(), shared)
        case _:
            raise InvalidParameterError(
                "The body is application/json or text/csv.", field="Content-Type", provided=kind
            )


Batch = Annotated[schemas.BulkImport, Depends(_batch)]

WAIT_SECONDS = 10.0
"""How long an answer waits for provisioning to end; it goes on behind a 202."""

_RECHECK_SECONDS = 2.0


@router.get("", response_model=Listing[schemas.NumberListed])
async def list_numbers(
    caller: Reader,
    database: DatabasePart,
    page: Page,
    trunk_id: Annotated[str | None, Query(max_length=200, description="Only those on this trunk.")] = None,
    status: Annotated[schemas.Status | None, Query(description="Only those in this state.")] = None,
    engine: Annotated[Engine | None, Query(description="Only those that this engine answers.")] = None,
) -> Response:
    """List phone numbers, newest first."""
    filters = {"trunk_id": trunk_id, "status": status, "engine": engine}
    rows, total = await queries.list_page(database, caller, page, filters)
    return page.encode([schemas.listed(row) for row in rows], total)


@router.post(
    "/import",
    status_code=201,
    responses=raises("invalid_phone_number", "trunk_not_found", "agent_not_found", "phone_number_exists"),
)
async def import_number(
    caller: Writer, database: RequestDatabasePart, importer: ImporterPart, imports: Imports, body: schemas.NumberImport
) -> schemas.NumberHead:
    """Import a phone number."""
    return schemas.head(asdict(await importer.import_number(database, caller, body, imports)))


BULK_PATH = f"{router.prefix}/bulk-import"
BULK_MAX_BYTES = 16 << 20
"""What 1000 rows take, if every text in them is as long as it may be and each character escaped as JSON's longest."""


@router.post(
    "/bulk-import",
    responses={202: {"model": schemas.BulkProgress}},
    openapi_extra={"requestBody": schemas.BULK_REQUEST_BODY},
)
async def bulk_import(
    caller: Writer, database: RequestDatabasePart, imports: Imports, batch: Batch, response: Response
) -> schemas.BulkImported | schemas.BulkProgress:
    """Import up to 1000 phone numbers, each judged for itself. The body may have 16 MiB.

    A row past the rate limit fails with `import_limit_exceeded`; with `queue` it waits its turn instead.
    """
    if batch.dry_run:
        return schemas.bulk_imported(await _judge(database, caller, batch), dry_run=True)
    async with database.transaction() as conn:
        if not batch.queue:
            return schemas.bulk_imported(await bulk.import_now(conn, caller, batch, imports), dry_run=False)
        import_id = await bulk.enqueue(conn, caller, batch)
        response.status_code = 202
        return schemas.bulk_progress(*await bulk.progress(conn, caller, import_id))


@router.get("/bulk-import/{import_id}", responses=raises("import_not_found"))
async def get_bulk_import(caller: Reader, conn: Connection, import_id: str) -> schemas.BulkProgress:
    """Return how far a queued import is, with a verdict a row."""
    return schemas.bulk_progress(*await bulk.progress(conn, caller, import_id))


@router.get("/{phone_id}", response_model=schemas.Number, responses=raises("phone_not_found"))
async def get_number(
    caller: Reader, database: DatabasePart, sealer: SealerPart, providers: ProvidersPart, phone_id: str
) -> Response:
    """Return a phone number in full."""
    row = await service.get_full(database, caller, phone_id)
    return encode(schemas.full(row, await names.agent_name(database, sealer, providers["elevenlabs"], caller, row)))


@router.patch("/{phone_id}", responses=raises("phone_not_found", "agent_not_found", "trunk_not_found"))
async def update_number(
    caller: Writer, conn: Connection, phone_id: str, body: schemas.NumberUpdate
) -> schemas.NumberUpdated:
    """Change a phone number, switch it off or on; config is merged with what is there."""
    return schemas.updated(await service.update(conn, caller, phone_id, body))


@router.delete("/{phone_id}", responses=raises("phone_not_found"))
async def delete_number(caller: Writer, conn: Connection, phone_id: str) -> Done:
    """Remove a phone number here; the provider is not told."""
    await service.delete(conn, caller, phone_id)
    return Done(message="Phone number deleted successfully")


@router.post(
    "/{phone_id}/provision",
    responses={202: {"model": schemas.Provisioned}, **raises("phone_not_found", "provisioning_failed")},
)
async def provision_number(
    caller: Writer, database: DatabasePart, phone_id: str, response: Response
) -> schemas.Provisioned:
    """Provision a phone number. Waits up to 10 s; 202 if it goes on after that."""
    async with database.transaction() as conn:
        row = await service.request_provisioning(conn, caller, phone_id)
    row = await _wait(database, lambda conn: service.get(conn, caller, phone_id), _is_pending, row)
    if row.status == "inactive":
        raise _failed(row)
    response.status_code = 202 if _is_pending(row) else 200
    return schemas.provisioned(row)


@trunk_router.post("/{trunk_id}/provision", responses=raises("trunk_not_found", "provisioning_failed"))
async def provision_trunk(
    caller: TrunkWriter, trunks: PartsAtOnce, database: DatabasePart, providers: ProvidersPart, trunk_id: str
) -> TrunkProvisioned:
    """Provision an OpenAI trunk, project-wide: its calls are told to us from then on, and its numbers become active.

    Waits up to 10 s for the numbers; those that take longer become active later.
    """
    armed = await trunk_service.provision(trunks, providers["openai"], caller, trunk_id)
    await _reprovision(database, caller, trunk_id)
    return TrunkProvisioned(
        provisioned_at=iso(utc_now()),
        webhook_url=trunk_service.webhook_url(trunks.settings, trunk_id),
        webhook_is_registered=armed.is_registered,
    )


@trunk_router.post(
    "/{trunk_id}/reprovision-all",
    responses={202: {"model": schemas.Reprovisioned}, **raises("trunk_not_found", "provisioning_failed")},
)
async def reprovision_all(
    caller: Writer,
    trunks: PartsAtOnce,
    database: DatabasePart,
    providers: ProvidersPart,
    trunk_id: str,
    response: Response,
) -> schemas.Reprovisioned:
    """Provision every number of a trunk anew, as after new credentials. Waits up to 10 s; 202 if some go on.

    An OpenAI trunk is provisioned anew itself first.
    """
    async with database.read() as conn:
        trunk = await trunk_service.get(conn, caller, trunk_id)
    if trunk.provider == "openai":
        await trunk_service.provision(trunks, providers["openai"], caller, trunk_id)
    counts = await _reprovision(database, caller, trunk_id)
    response.status_code = 202 if counts.provisioning else 200
    return counts


async def _reprovision(database: Database, caller: Caller, trunk_id: str) -> schemas.Reprovisioned:
    """Have every number of a trunk provisioned anew, and wait for them for a while."""
    async with database.transaction() as conn:
        ids = await service.request_provisioning_of_all(conn, caller, trunk_id)
    pending, failed = await _wait(
        database, lambda conn: queries.count_pending(conn, ids), lambda counts: counts[0] > 0, (len(ids), 0)
    )
    return schemas.Reprovisioned(
        success=failed == 0,
        total_numbers=len(ids),
        provisioned=len(ids) - pending - failed,
        failed=failed,
        provisioning=pending,
    )


async def _judge(database: RequestDatabase, caller: Caller, batch: schemas.BulkImport) -> list[schemas.Verdict]:
    """Import in a transaction that is undone."""
    async with database.transaction() as conn, conn.begin_nested() as undone:
        verdicts = await bulk.judge(conn, caller, batch)
        await undone.rollback()
    return verdicts


@agent_router.delete("/{agent_id}", responses=raises("agent_not_found", "agent_in_use"))
async def delete_agent(
    caller: Annotated[Caller, Depends(require("agents:write"))],
    conn: Connection,
    agent_id: str,
    force: Annotated[bool, Query(description="Leave numbers that it answers without an agent.")] = False,  # noqa: FBT002  (a query parameter)
) -> Done:
    """Remove an agent."""
    await service.delete_agent(conn, caller, agent_id, force=force)
    return Done(message="Agent deleted successfully")


async def _wait(
    database: Database,
    look: Callable[[AsyncConnection], Awaitable[T]],
    goes_on: Callable[[T], bool],
    seen: T,
) -> T:
    """Look again each time a job has changed a number, until nothing goes on or the time is up."""
    deadline = asyncio.get_running_loop().time() + WAIT_SECONDS
    with database.listener.ear(queries.CHANNEL) as ear:
        while goes_on(seen) and (left := database.listener.seconds_left(deadline)) > 0:
            async with database.read() as conn:
                seen = await look(conn)
            if goes_on(seen):
                await ear.wait(min(left, _RECHECK_SECONDS))
    return seen


def _is_pending(row: Row) -> bool:
    """Tell whether provisioning goes on; the same as `queries.is_pending` says in SQL."""
    return bool(row.status == "provisioning" or (row.status == "active" and row.needs_reprovision))


def _failed(row: Row) -> ProvisioningFailedError:
    return ProvisioningFailedError(
        "The number could not be provisioned.",
        details={"phone_number": row.e164, "provider": row.engine or "generic", "reason": row.status_reason},
    )

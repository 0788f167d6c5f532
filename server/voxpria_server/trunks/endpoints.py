"""/v1/sip/trunks, but for what concerns all numbers of one (numbers.endpoints)."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response

from voxpria_server.auth.route import KeyedRoute
from voxpria_server.auth.service import Caller, require
from voxpria_server.errors import raises
from voxpria_server.kit.answers import Done, encode
from voxpria_server.kit.db import Connection, DatabasePart, RequestDatabasePart
from voxpria_server.kit.pagination import Listing, Page
from voxpria_server.kit.sealing import SealerPart
from voxpria_server.settings import SettingsPart
from voxpria_server.trunks import queries, schemas, service

router = APIRouter(prefix="/sip/trunks", tags=["SIP trunks"], route_class=KeyedRoute)
Reader = Annotated[Caller, Depends(require("trunks:read"))]
Writer = Annotated[Caller, Depends(require("trunks:write"))]


async def _parts(settings: SettingsPart, database: RequestDatabasePart, sealer: SealerPart) -> service.Trunks:
    return service.Trunks(settings, database, sealer)


async def _parts_at_once(settings: SettingsPart, database: DatabasePart, sealer: SealerPart) -> service.Trunks:
    return service.Trunks(settings, database, sealer)


Parts = Annotated[service.Trunks, Depends(_parts)]
PartsAtOnce = Annotated[service.Trunks, Depends(_parts_at_once)]
"""The same, with each transaction committed at once: for what waits for others, and may be asked for twice."""


@router.get("", response_model=Listing[schemas.TrunkListed])
async def list_trunks(
    caller: Reader,
    database: DatabasePart,
    page: Page,
    provider: Annotated[schemas.ProviderName | None, Query(description="Only those of this provider.")] = None,
) -> Response:
    """List SIP trunks, newest first."""
    rows, total = await queries.list_page(database, caller, page, provider)
    return page.encode(rows, total)


@router.post("", status_code=201, responses=raises("invalid_credentials", "trunk_name_exists", "trunk_not_found"))
async def create_trunk(caller: Writer, parts: Parts, body: schemas.TrunkCreate) -> schemas.TrunkSummary:
    """Add a SIP trunk. Its server is asked at once; credentials that it refuses are an error."""
    return schemas.summary(await service.create(parts, caller, body))


@router.get("/{trunk_id}", response_model=schemas.Trunk, responses=raises("trunk_not_found"))
async def get_trunk(caller: Reader, database: DatabasePart, settings: SettingsPart, trunk_id: str) -> Response:
    """Return a trunk with its numbers and health."""
    row = await service.read(database, caller, trunk_id)
    hook = service.webhook_url(settings, trunk_id) if row["provider"] == "openai" else None
    return encode(schemas.full(row, hook))


@router.patch("/{trunk_id}", responses=raises("invalid_credentials", "trunk_not_found", "trunk_name_exists"))
async def update_trunk(caller: Writer, parts: Parts, trunk_id: str, body: schemas.TrunkUpdate) -> schemas.TrunkUpdated:
    """Change a trunk; credentials and config are merged with what is there."""
    return schemas.updated(await service.update(parts, caller, trunk_id, body))


@router.delete("/{trunk_id}", responses=raises("trunk_not_found", "trunk_has_active_numbers"))
async def delete_trunk(
    caller: Writer,
    conn: Connection,
    trunk_id: str,
    force: Annotated[bool, Query(description="Remove active numbers too.")] = False,  # noqa: FBT002  (a query parameter)
) -> Done:
    """Remove a trunk and its numbers."""
    await service.delete(conn, caller, trunk_id, force=force)
    return Done(message="Trunk deleted successfully")


@router.post("/{trunk_id}/test", responses=raises("trunk_not_found"))
async def test_trunk(caller: Writer, parts: PartsAtOnce, trunk_id: str) -> schemas.TrunkTest:
    """Examine a trunk's server, step by step, and say what failed and how to mend it. Takes up to 15 s."""
    return schemas.test(await service.test(parts, caller, trunk_id))

"""/v1/sip/route-test."""

from typing import Annotated

from fastapi import APIRouter, Depends

from voxpria_server.auth.route import KeyedRoute
from voxpria_server.auth.service import Caller, require
from voxpria_server.kit.db import Connection
from voxpria_server.kit.sealing import SealerPart
from voxpria_server.routing import schemas, service
from voxpria_server.settings import SettingsPart

router = APIRouter(prefix="/sip", tags=["SIP trunks"], route_class=KeyedRoute)
Reader = Annotated[Caller, Depends(require("trunks:read"))]


@router.post("/route-test")
async def test_route(
    caller: Reader, conn: Connection, settings: SettingsPart, sealer: SealerPart, body: schemas.RouteTest
) -> schemas.RouteVerdict:
    """Say what would become of a call, and why, without placing it."""
    return schemas.verdict(await service.test_route(conn, settings, sealer, caller, body))

"""/hooks: where providers send their webhooks. Signed by them, not by an API key; not a part of the public API."""

from fastapi import APIRouter, Request

from voxpria_server.kit.db import Connection
from voxpria_server.kit.sealing import SealerPart
from voxpria_server.provider_hooks import service

router = APIRouter(prefix="/hooks", include_in_schema=False)


@router.post("/openai/{trunk_id}")
async def openai(request: Request, conn: Connection, sealer: SealerPart, trunk_id: str) -> dict[str, bool]:
    """Take an event of an OpenAI project."""
    await service.take_openai(conn, sealer, trunk_id, await request.body(), request.headers)
    return {"received": True}

"""The names of agents at ElevenLabs: asked for there, kept for a while, never made up."""

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from voxpria_server.auth.service import Caller
from voxpria_server.kit.clock import utc_now
from voxpria_server.kit.db import Database
from voxpria_server.kit.logs import get_logger
from voxpria_server.kit.sealing import SealBrokenError, Sealer
from voxpria_server.numbers import queries, service
from voxpria_server.providers.base import RefusedError, UnreachableError
from voxpria_server.providers.elevenlabs import ElevenLabs
from voxpria_server.trunks.service import open_credentials

_KEPT = timedelta(hours=1)
_UNKNOWN_KEPT = timedelta(minutes=1)
_DEADLINE_SECONDS = 2.0
_log = get_logger(__name__)


async def agent_name(
    database: Database, sealer: Sealer, elevenlabs: ElevenLabs, caller: Caller, number: Mapping[str, Any]
) -> str | None:
    """Return the name of a number's agent, ours or that at ElevenLabs; None if there is none, or it can't be known.

    `number` is a row of `queries.find_full`. ElevenLabs is asked once an hour an agent, for 2 s at most; while it is
    away, the name that it last gave stands.
    """
    if number["agent_id"] is None or number["agent_name"] is not None or number["engine"] != "elevenlabs":
        return _text(number["agent_name"])
    known = _text(number["known_name"])
    if number["known_at"] is not None and number["known_at"] > utc_now() - (_KEPT if known else _UNKNOWN_KEPT):
        return known
    asked = await _account(database, sealer, caller, number["id"])
    if asked is None:
        return known
    try:
        async with asyncio.timeout(_DEADLINE_SECONDS):
            name = await elevenlabs.agent_name(caller.mode, *asked, number["agent_id"])
    except (RefusedError, UnreachableError, TimeoutError) as error:
        _log.info("agent's name not known", agent_id=number["agent_id"], reason=str(error))
        return known
    async with database.transaction() as conn:
        await queries.keep_agent_name(conn, caller, number["agent_id"], name, utc_now())
    return name


async def _account(
    database: Database, sealer: Sealer, caller: Caller, number_id: str
) -> tuple[str, Mapping[str, str]] | None:
    """Return server and credentials of the trunk that a number's calls go to; None if there is none."""
    async with database.read() as conn:
        number = await queries.find(conn, caller, number_id)
        if number is None:
            return None
        owner = (number.account_id, number.mode)
        carrier = await queries.trunk_of_job(conn, *owner, number.trunk_id)
        of_engine = await queries.trunks_of_engine(conn, *owner, number.engine)
    target = service.choose_target(number, carrier, of_engine) if carrier is not None else "it is gone"
    if isinstance(target, str):
        return None
    try:
        return target.config["server"], open_credentials(sealer, target.id, target.sealed_credentials)
    except SealBrokenError:
        return None


def _text(name: object) -> str | None:
    return name if isinstance(name, str) else None

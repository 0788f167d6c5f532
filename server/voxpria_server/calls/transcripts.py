"""Whom to ask for what was said in a call."""

from sqlalchemy.ext.asyncio import AsyncConnection

from voxpria_server.calls import queries
from voxpria_server.kit.db import Row
from voxpria_server.kit.sealing import SealBrokenError, Sealer
from voxpria_server.numbers import queries as numbers
from voxpria_server.numbers.service import choose_target
from voxpria_server.providers.elevenlabs_api import key_of
from voxpria_server.providers.elevenlabs_conversations import AnsweredCall
from voxpria_server.trunks.service import open_credentials


class NotYetError(Exception):
    """The provider has not written down what was said; it is asked again later."""


async def asked_for(conn: AsyncConnection, sealer: Sealer, call_id: str) -> tuple[str, AnsweredCall] | None:
    """Return the key to ask ElevenLabs with, and for what call; None if the call was not theirs, or there is no key."""
    call = await queries.find_of_job(conn, call_id)
    if call is None or call.answered_at is None or call.has_transcript:
        return None
    trunk = await _trunk_of(conn, call)
    if trunk is None or trunk.provider != "elevenlabs":
        return None
    try:
        key = key_of(open_credentials(sealer, trunk.id, trunk.sealed_credentials), call.mode)
    except SealBrokenError:
        return None
    if key is None:
        return None
    return key, AnsweredCall(call.id, call.sip_call_id, call.answered_at, call.mode, trunk.config["server"])


async def _trunk_of(conn: AsyncConnection, call: Row) -> Row | None:
    """Return the trunk that a call of the number went to, as the number is now."""
    owner = (call.account_id, call.mode)
    number = await queries.number_of_job(conn, *owner, call.number_id) if call.number_id else None
    carrier = await numbers.trunk_of_job(conn, *owner, number.trunk_id) if number else None
    if number is None or carrier is None:
        return None
    of_engine = await numbers.trunks_of_engine(conn, *owner, number.engine) if number.engine else []
    target = choose_target(number, carrier, of_engine)
    return None if isinstance(target, str) else target

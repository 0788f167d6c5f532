"""The rules for what providers tell us: OpenAI's incoming calls.

A project's id is no secret, so anybody can make a call ring there in our customer's name, headers and all. A call is
accepted only if its X-VoxPria-Call-Id, which our edge puts in, names a call of the trunk's own account that is going on
through our edge at that moment.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any
from urllib.parse import unquote

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection
from standardwebhooks import Webhook, WebhookVerificationError

from voxpria_server.errors import InvalidParameterError, UnauthorizedError
from voxpria_server.kit.clock import utc_now
from voxpria_server.kit.db import Row
from voxpria_server.kit.ids import is_id
from voxpria_server.kit.jobs import defer
from voxpria_server.kit.logs import get_logger, name_in_log
from voxpria_server.kit.sealing import SealBrokenError, Sealer
from voxpria_server.provider_hooks import queries
from voxpria_server.providers.openai import INCOMING_CALL
from voxpria_server.trunks.service import hook_secrets
from voxpria_server.webhooks.signing import standard_key

ANSWER = "provider-hooks:answer"
DEFAULT_MODEL = "gpt-realtime"
_TRANSCRIPTION_MODEL = "gpt-4o-mini-transcribe"
_CALL_ID = "x-voxpria-call-id"
_KEPT_HEADERS = frozenset({_CALL_ID, "to", "from", "call-id", "diversion"})
_MAX_HEADERS = 20
RINGS_SECONDS = 60
"""A call that began to ring longer ago is over, or about to be."""
_log = get_logger(__name__)


class SipHeader(msgspec.Struct):
    """A header of the INVITE, as the provider got it: somebody's word, no more."""

    name: str
    value: str


class IncomingData(msgspec.Struct):
    """What is said of a call that rings."""

    call_id: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{1,128}$")]
    """Goes into the path of our requests to the provider."""
    sip_headers: list[SipHeader] = []


class Incoming(msgspec.Struct):
    """A `realtime.call.incoming` event."""

    id: str
    created_at: float
    """Unix seconds, by the provider's clock."""
    data: IncomingData


class _Kind(msgspec.Struct):
    type: str


async def take_openai(
    conn: AsyncConnection, sealer: Sealer, trunk_id: str, body: bytes, headers: Mapping[str, str]
) -> None:
    """Take an event of an OpenAI project: kept, and worked on, once. Other events than calls are none of ours.

    Raises 401 invalid_webhook_signature, for an unknown trunk too, so that none can be looked for; 400 for no event.
    """
    trunk = await queries.find_trunk(conn, trunk_id)
    if trunk is None or not _is_signed(_secrets(sealer, trunk), body, headers):
        raise UnauthorizedError("This is not signed with the webhook's secret.", code="invalid_webhook_signature")
    try:
        if msgspec.json.decode(body, type=_Kind).type != INCOMING_CALL:
            return
        event = msgspec.json.decode(body, type=Incoming)
    except msgspec.MsgspecError:
        raise InvalidParameterError("This is no event.", field="body") from None
    if float(headers["webhook-timestamp"]) - event.created_at > RINGS_SECONDS:  # sent again and again, for up to 3 days
        _log.info("event of a call that rings no more", trunk_id=trunk.id, event_id=event.id)
        return
    kept, now = _kept(event.data.sip_headers), utc_now()
    if call_id := our_call_id(kept):
        name_in_log(call_id=call_id)
    values = {
        "trunk_id": trunk.id,
        "provider_call_id": event.data.call_id,
        "event_id": headers["webhook-id"],
        "status": "pending",
        "sip_headers": kept,
        "received_at": now,
        "updated_at": now,
    }
    if await queries.add_call(conn, values):
        await defer(conn, ANSWER, {"trunk_id": trunk.id, "provider_call_id": event.data.call_id}, queue="answers")
    else:
        _log.info("event taken before", trunk_id=trunk.id, event_id=event.id)


def our_call_id(sip_headers: Mapping[str, str]) -> str | None:
    """Return the id of the call at our edge that a ringing call claims to be; None for what can be no id of ours."""
    claimed = unquote(sip_headers.get(_CALL_ID, ""))
    return claimed if is_id(claimed, "call") else None


def session_of(call: Row) -> dict[str, Any]:
    """Return what the agent of a call is to be like, in OpenAI's words."""
    config = call.config
    language = config.get("language") or call.language
    parts = [
        call.instructions,
        f'Begin the conversation by saying: "{config["first_message"]}"' if config.get("first_message") else None,
        f"Speak the language with the tag {language}, unless the caller wants another." if language else None,
    ]
    # no format: SIP negotiates that; without a transcription the caller's words are told to nobody
    audio: dict[str, Any] = {"input": {"transcription": {"model": _TRANSCRIPTION_MODEL}}}
    if call.voice:
        audio["output"] = {"voice": call.voice}
    session: dict[str, Any] = {"type": "realtime", "model": call.model or DEFAULT_MODEL, "audio": audio}
    instructions = "\n\n".join(part for part in parts if part)
    if instructions:
        session["instructions"] = instructions
    return session


def _secrets(sealer: Sealer, trunk: Row) -> Sequence[str]:
    try:
        return hook_secrets(sealer, trunk)
    except SealBrokenError:
        _log.error("a hook's secrets can't be opened", trunk_id=trunk.id)
        return ()


def _is_signed(secrets: Sequence[str], body: bytes, headers: Mapping[str, str]) -> bool:
    """Tell whether one of the secrets signed this, within the last 5 minutes (Standard Webhooks)."""
    signed = {name: headers[name] for name in headers if name.startswith("webhook-")}
    for secret in secrets:
        try:
            Webhook(standard_key(secret)).verify(body, signed)
        except (WebhookVerificationError, ValueError, RecursionError):
            continue
        return True
    return False


def _kept(sip_headers: Sequence[SipHeader]) -> dict[str, str]:
    """Return the headers that matter, the first of each name, each cut to what a call's id or a number takes."""
    kept: dict[str, str] = {}
    for header in sip_headers:
        name = header.name.lower()
        if name in _KEPT_HEADERS and len(kept) < _MAX_HEADERS:
            kept.setdefault(name, header.value[:256].replace("\x00", ""))
    return kept

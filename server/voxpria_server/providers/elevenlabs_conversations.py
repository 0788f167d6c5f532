"""What was said in a call, as ElevenLabs keeps it: the conversation of an agent, found by the call's SIP names.

Their list knows no phone number and no SIP Call-ID, so the conversations that began about when the call was answered
are looked at one by one. Which of `call_sid` and `call_id` is the SIP Call-ID they do not say; our own id of the call
comes back too, from the X- header that the edge sent.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from urllib.parse import quote

import httpx2

from voxpria_server.providers.base import Mode, RefusedError, UnreachableError
from voxpria_server.providers.elevenlabs_api import Session, content_of
from voxpria_server.settings import Settings

_PATH = "/v1/convai/conversations"
_AROUND = timedelta(seconds=90)
_PAGE_SIZE = 100
_MOST_PAGES = 3
_MOST_LOOKED_AT = 40
_MOST_TURNS = 2000
_TEXT_LENGTH = 10_000
_ENDED = frozenset({"done", "failed"})


@dataclass(frozen=True)
class AnsweredCall:
    """A call that an agent of theirs took."""

    call_id: str
    sip_call_id: str
    answered_at: datetime
    mode: Mode
    server: str
    """The SIP server that it went to."""


@dataclass(frozen=True)
class Turn:
    """One thing that was said; `at` is to the second, on their clock."""

    speaker: Literal["agent", "caller"]
    text: str
    at: datetime


@dataclass(frozen=True)
class Conversation:
    """A conversation that is over."""

    id: str
    turns: tuple[Turn, ...]


class Conversations:
    """The part of their REST API that tells of conversations."""

    def __init__(self, http: httpx2.AsyncClient, settings: Settings) -> None:
        self._http, self._settings = http, settings

    async def find(self, key: str, call: AnsweredCall) -> Conversation | None:
        """Return the conversation of a call; None if there is none yet, or it is not written down yet.

        Raises RefusedError or UnreachableError.
        """
        session, looked_at = Session(self._http, self._settings, call.mode, call.server, key), 0
        cursor: str | None = None
        for _ in range(_MOST_PAGES):
            page = await _asked(session, _PATH, _around(call, cursor))
            for item in _objects(page.get("conversations")):
                looked_at += 1
                conversation_id = item.get("conversation_id")
                if looked_at > _MOST_LOOKED_AT or not isinstance(conversation_id, str):
                    continue
                detail = await _asked(session, f"{_PATH}/{quote(conversation_id, safe='')}")
                if _is_of(detail, call):
                    return _conversation(conversation_id, detail) if detail.get("status") in _ENDED else None
            cursor = page.get("next_cursor") if page.get("has_more") else None
            if not isinstance(cursor, str):
                break
        return None


async def _asked(session: Session, path: str, params: Mapping[str, str | int] | None = None) -> dict[str, Any]:
    content = content_of(await session.ask("GET", path, params=params))
    if not isinstance(content, dict):
        raise UnreachableError("ElevenLabs did not answer properly")
    return content


def _around(call: AnsweredCall, cursor: str | None) -> dict[str, str | int]:
    since, before = call.answered_at - _AROUND, call.answered_at + _AROUND
    params: dict[str, str | int] = {
        "page_size": _PAGE_SIZE,
        "call_start_after_unix": int(since.timestamp()),
        "call_start_before_unix": int(before.timestamp()),
    }
    return params if cursor is None else {**params, "cursor": cursor}


def _is_of(detail: Mapping[str, Any], call: AnsweredCall) -> bool:
    phone_call = _object(_object(detail.get("metadata")).get("phone_call"))
    variables = _object(phone_call.get("sip_header_dynamic_variables"))
    named = {phone_call.get("call_sid"), phone_call.get("call_id")}
    return call.sip_call_id in named or call.call_id in variables.values()


def _conversation(conversation_id: str, detail: Mapping[str, Any]) -> Conversation:
    begun = _object(detail.get("metadata")).get("start_time_unix_secs")
    if not isinstance(begun, int | float) or not 0 < begun < 1 << 33:
        raise RefusedError("ElevenLabs told of a conversation without its time")
    begun_at = datetime.fromtimestamp(begun, UTC)
    turns = (_turn(begun_at, one) for one in _objects(detail.get("transcript"))[:_MOST_TURNS])
    return Conversation(conversation_id, tuple(turn for turn in turns if turn is not None))


def _turn(begun_at: datetime, turn: Mapping[str, Any]) -> Turn | None:
    """Return what was said in a turn; None for one without words, as of a tool."""
    text, seconds = turn.get("message"), turn.get("time_in_call_secs")
    if not isinstance(text, str) or not text.strip() or not isinstance(seconds, int | float) or not 0 <= seconds < 1e6:
        return None
    speaker: Literal["agent", "caller"] = "agent" if turn.get("role") == "agent" else "caller"
    return Turn(speaker, text.replace("\x00", "")[:_TEXT_LENGTH], begun_at + timedelta(seconds=seconds))


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _objects(value: object) -> list[Mapping[str, Any]]:
    return list(_only_objects(value)) if isinstance(value, list) else []


def _only_objects(values: list[Any]) -> Iterator[Mapping[str, Any]]:
    return (value for value in values if isinstance(value, dict))

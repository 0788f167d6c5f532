"""What is said in a call to OpenAI, folded from the events of the call's own socket: each turn once it is over.

The caller's words come from `conversation.item.input_audio_transcription.completed`, the agent's from
`response.output_audio_transcript.done`. Neither has a time: a turn begins when the first event of its item comes.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import msgspec

from voxpria_server.kit.logs import get_logger

_BEGINNINGS = frozenset({"input_audio_buffer.speech_started", "response.output_audio_transcript.delta"})
_SPEAKERS: dict[str, Literal["agent", "caller"]] = {
    "conversation.item.input_audio_transcription.completed": "caller",
    "response.output_audio_transcript.done": "agent",
}
_FAILED = "conversation.item.input_audio_transcription.failed"
_MOST_TURNS = 2000
_MOST_BEGUN = 100
_TEXT_LENGTH = 10_000
_NAME_LENGTH = 128
_log = get_logger(__name__)


@dataclass(frozen=True)
class Said:
    """One thing that was said."""

    item_id: str
    """OpenAI's name of it, unique in its call."""
    speaker: Literal["agent", "caller"]
    text: str
    at: datetime


class _Error(msgspec.Struct):
    type: str = ""
    code: str | None = None


class _Event(msgspec.Struct):
    type: str
    item_id: str = ""
    transcript: str = ""
    error: _Error | None = None


class Dictation:
    """Takes down one call. What is no event of those above is passed over, and so are turns beyond the 2000th."""

    def __init__(self) -> None:
        self._begun: dict[str, datetime] = {}
        self._count = 0

    def hear(self, text: str | bytes, at: datetime) -> Said | None:
        """Take an event that came at that time; return the turn that it ends, if any."""
        try:
            event = msgspec.json.decode(text, type=_Event)
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            return None
        if event.error is not None:
            code = (event.error.code or event.error.type)[:_NAME_LENGTH]
            _log.warning(
                "OpenAI tells of an error", kind="transcription" if event.type == _FAILED else "call", code=code
            )
        if event.type in _BEGINNINGS:
            self._begin(event.item_id, at)
        speaker = _SPEAKERS.get(event.type)
        words = event.transcript.replace("\x00", "").strip()[:_TEXT_LENGTH]
        if speaker is None or not words or not 0 < len(event.item_id) <= _NAME_LENGTH or self._count >= _MOST_TURNS:
            return None
        self._count += 1
        return Said(event.item_id, speaker, words, self._begun.pop(event.item_id, at))

    def _begin(self, item_id: str, at: datetime) -> None:
        if len(self._begun) >= _MOST_BEGUN:
            self._begun.pop(next(iter(self._begun)))
        self._begun.setdefault(item_id[:_NAME_LENGTH], at)

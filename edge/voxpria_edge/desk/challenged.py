"""Calls whose caller was asked to call once more: with credentials, or for longer. The next INVITE is the same call."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from voxpria_routing.decision import Reject

from voxpria_edge.calls.call import Call
from voxpria_edge.proxy import messages

T = TypeVar("T")

_SECONDS = 8.0
"""How long the next INVITE may take; RFC 3261 has clients send it at once."""
_MOST = 2000

Key = tuple[str, str]
"""Call-ID and tag of the caller, which an INVITE keeps that follows an answer (RFC 3261 section 22.2, RFC 4028)."""


@dataclass(frozen=True)
class Challenged:
    """An INVITE that waits for its answer, and what it is if none comes."""

    invite: messages.Invite
    decision: Reject


@dataclass(frozen=True)
class TooShort:
    """A call that was refused with 422, and by which message; it is over if no other INVITE comes."""

    call: Call
    ended: messages.Ended


class Waiting(Generic[T]):
    """Those that wait, by Call-ID and tag; at most 2000, as anybody may fill this."""

    def __init__(self, on_unanswered: Callable[[T], None]) -> None:
        self._on_unanswered = on_unanswered
        self._timers: dict[Key, tuple[T, asyncio.TimerHandle]] = {}

    def add(self, key: Key, what: T) -> bool:
        """Wait for an answer; False if too many wait."""
        if len(self._timers) >= _MOST or key in self._timers:
            return False
        self._timers[key] = (what, asyncio.get_running_loop().call_later(_SECONDS, self._give_up, key))
        return True

    def take(self, key: Key) -> T | None:
        """Return what waited."""
        found = self._timers.pop(key, None)
        if found is None:
            return None
        what, timer = found
        timer.cancel()
        return what

    def _give_up(self, key: Key) -> None:
        what, _ = self._timers.pop(key)
        self._on_unanswered(what)


def key_of(call: Call | messages.Invite) -> Key:
    """Return what the next INVITE of the same call has in common with the one that began it."""
    if isinstance(call, Call):
        return call.sip_call_id, call.from_tag
    return messages.text(call.call_id), messages.text(call.from_tag)

"""The calls of this edge that are not done with: changed at once, on disk a moment later, then acknowledged."""

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import msgspec
import structlog
from voxpria_routing.events import CallEvent, EndCause, Ended, Side

from voxpria_edge.calls import call as calls
from voxpria_edge.calls import endings
from voxpria_edge.calls.call import Call
from voxpria_edge.calls.spool import Change, Spool
from voxpria_edge.kit.background import Background
from voxpria_edge.kit.lately import Lately
from voxpria_edge.proxy.kamailio import Rpc, RpcError

_log = structlog.get_logger(__name__)

_MOST_ACKNOWLEDGED_AT_ONCE = 1000
_SETTLE_SECONDS = 2.0
_TIDY_SECONDS = 60.0
_LATE_SECONDS = 120.0
"""How long somebody may still answer a call that is over: longer than its answer is repeated, or it may ring."""


class Book:
    """What is known of each call, and who hears when that changes."""

    def __init__(self, spool: Spool, rpc: Rpc) -> None:
        self._spool, self._rpc = spool, rpc
        self.calls: dict[str, Call] = {}
        self.orphans: set[str] = set()
        """Open calls that Kamailio does not know (it was restarted)."""
        self.is_current = False
        """Whether Kamailio is there, and all that it had to say has been heard."""
        self.on_changed: Callable[[Call], None]
        """Counts what a dialled call takes, with each change of it."""
        self.on_ended: Callable[[Call], None]
        """Takes each dialled call once its end is on disk."""
        self.on_told: Callable[[Sequence[CallEvent]], None] = lambda _: None
        """Hears the events of a change once they are on disk."""
        self.on_over: Callable[[Call, Side | None], None] = lambda _call, _by: None
        """Hears of a dialled call that is over, and who ended it, once that is on disk."""
        self.over = Lately(_LATE_SECONDS)
        """Dialled calls that ended lately, by their ids."""
        self._acknowledging: asyncio.Queue[str] = asyncio.Queue(_MOST_ACKNOWLEDGED_AT_ONCE)
        self._unacknowledged: set[str] = set()
        """Messages on disk that Kamailio has not been told of, or did not hear that it was."""
        self._background = Background()

    def take_over(self, kept: Sequence[Call]) -> None:
        """Take over what the spool held from an earlier run."""
        self.calls = {call.id: call for call in kept}
        for call in kept:
            self.on_changed(call)

    @property
    def open_calls(self) -> list[Call]:
        """Calls that have not ended."""
        return [call for call in self.calls.values() if call.ended_at is None]

    def open_call(self, call_id: str) -> Call | None:
        """Return a call, if it has not ended."""
        call = self.calls.get(call_id)
        return call if call is not None and call.ended_at is None else None

    async def is_unheard(self, id_: str) -> bool:
        """Tell whether nothing is on disk of a command, or of a message of Kamailio's."""
        return bool(await self._spool.unheard([id_]))

    async def unheard(self, ids: Sequence[str]) -> set[str]:
        """Return those of Kamailio's message ids that nothing is on disk of."""
        return await self._spool.unheard(ids)

    def remember(self, heard: str | None, call: Call | None, told: Sequence[CallEvent]) -> None:
        """Change what is known at once, and put it on disk; the writes keep their order."""
        if call is not None and self._is_over(call):
            call = None  # done with, or about to be: kept once more, it would stay for good
        known: dict[str, Call | None] = {}
        before = self.calls.get(call.id) if call else None
        if call is not None:
            is_done = call.ended_at is not None and not call.is_dialled
            known[call.id] = None if is_done else call
            if is_done:
                self.calls.pop(call.id, None)
            else:
                self.calls[call.id] = call
        if call is not None and call.is_dialled:
            self.on_changed(call)
        ends = call is not None and call.is_dialled and call.ended_at is not None
        ends = ends and (before is None or before.ended_at is None)
        if call is not None and ends:
            self.over.is_new(call.id)
        self._background.begin(self._write(Change(told, known, heard), call if ends else None))

    def _is_over(self, call: Call) -> bool:
        """Tell whether a call ended before: two may say so at once, a hang-up and the server's refusal."""
        before = self.calls.get(call.id)
        return before.ended_at is not None if before else call.id in self.over

    async def _write(self, change: Change, ended: Call | None) -> None:
        """Write, then acknowledge: what could not be written comes again with the next resend."""
        try:
            await self._spool.commit(change)
        except Exception:
            _log.exception("the spool can't be written")
            return
        self.on_told(change.events)
        if change.heard is not None:
            await self.acknowledged(change.heard)
        if ended is not None:
            self.on_over(ended, next((event.by for event in change.events if isinstance(event, Ended)), None))
            self.orphans.discard(ended.id)
            self.on_ended(ended)

    async def begin(self, command_id: str, call: Call, told: Sequence[CallEvent]) -> None:
        """Open a call that the API asked for; it is on disk when this returns. Raises sqlite3.Error."""
        if call.is_dialled:
            self.calls[call.id] = call
        await self._spool.commit(Change(told, {call.id: call} if call.is_dialled else {}, command_id))
        self.on_told(told)

    def keep_bridge(self, changed: Call) -> None:
        """Remember the middle of a call as it is now."""
        call = self.open_call(changed.id)
        if call is not None:
            ours = {name: getattr(changed, name) for name in ("bridge", "is_captured", "unrecorded", "spoken")}
            kept = msgspec.structs.replace(call, **ours)
            self.remember(None, kept, calls.connected(call, kept))

    def fail_placed(self, call_id: str, cause: EndCause, detail: str) -> None:
        """Note why a call that we placed came to nothing, where that is not Kamailio's to tell."""
        call = self.open_call(call_id)
        if call is not None:
            by: Side = "agent" if cause == "rejected" else "edge"
            self.remember(None, *endings.failed(call, datetime.now(UTC), cause, by, detail))

    def lose(self, call: Call, detail: str) -> None:
        """End a call that nobody knows any more."""
        self.remember(None, *endings.lost(call, datetime.now(UTC), detail))

    def forget(self, call_id: str) -> None:
        """Be done with a call; its last events are on disk by now."""
        self.calls.pop(call_id, None)

    async def acknowledged(self, message_id: str) -> None:
        """Have a message acknowledged, for the first time or once more: it is on disk."""
        self._unacknowledged.add(message_id)
        await self._acknowledging.put(message_id)

    def caught_up(self) -> None:
        """Know that Kamailio has said all that it keeps: what else was not acknowledged, it has lost itself."""
        self._unacknowledged.clear()

    async def acknowledge(self) -> None:
        """Tell Kamailio what is on our disk, until cancelled. What it does not hear it only says once more."""
        while True:
            message_id = await self._acknowledging.get()
            try:
                await self._rpc.acknowledge(message_id)
            except RpcError as error:
                _log.warning("not acknowledged", error=str(error))
            else:
                self._unacknowledged.discard(message_id)

    async def tidy(self) -> None:
        """Keep no more of what was heard than may be said again, until cancelled."""
        while True:
            await asyncio.sleep(_TIDY_SECONDS)
            if self.is_current:  # else there may be more that was not acknowledged, in our last run
                await self.forget_heard()

    async def forget_heard(self) -> None:
        """Forget what was heard some while ago and acknowledged."""
        try:
            await self._spool.forget_heard(tuple(self._unacknowledged))
        except sqlite3.Error:
            _log.exception("the spool can't be tidied")

    async def settle(self) -> None:
        """Wait until everything taken so far is on disk."""
        await self._background.settle(_SETTLE_SECONDS)

"""Takes down what is said in calls to OpenAI, while they last: nobody can be asked for it later. One in every process.

An accepted call is a row with a lease. Whoever holds that is on the call's socket, has the agent begin if it is to
speak first, and keeps each turn as it ends; when the call is over the turns become its transcript. What a killed
process was on is another's when the lease runs out: of what was said meanwhile, and of nothing else, there is no word.
"""

import asyncio
import random
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from voxpria_server.calls import service as calls
from voxpria_server.kit.clock import utc_now
from voxpria_server.kit.db import Database, DatabaseUnavailableError, Row
from voxpria_server.kit.ending import end_task
from voxpria_server.kit.logs import get_logger, name_in_log
from voxpria_server.kit.sealing import SealBrokenError, Sealer
from voxpria_server.provider_hooks import queries
from voxpria_server.providers.base import RefusedError, UnreachableError
from voxpria_server.providers.openai import OpenAI, Project
from voxpria_server.providers.openai_said import Said
from voxpria_server.trunks.service import open_credentials

_log = get_logger(__name__)
_AT_ONCE = 500
"""So many calls a process is on at most; others are another's, or wait."""
_LEASE = timedelta(seconds=30)
_LOOK_SECONDS = 5.0
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.2, 5.0
_FIRST_WORDS = timedelta(seconds=10)
"""An agent that could not be told in time to begin is not told any more: the caller will have spoken."""
_STOP_SECONDS = 1.0
_TROUBLE = (DatabaseUnavailableError, sa.exc.DBAPIError)

Key = tuple[str, str]
"""Trunk and OpenAI's id of the call."""


class Scribe:
    """The scribe of a process: `start` it within the event loop, `stop` it before its parts are closed."""

    def __init__(self, database: Database, sealer: Sealer, openai: OpenAI) -> None:
        self._database, self._sealer, self._openai = database, sealer, openai
        self._attended: dict[Key, asyncio.Task[None]] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start, in tasks of its own."""
        self._task = asyncio.create_task(self._keep_attending(), name="scribe")

    async def stop(self) -> None:
        """Leave the calls that go on to another process, at once."""
        if self._task is None:
            return
        await end_task(self._task, _STOP_SECONDS)
        left = [*self._attended]
        await asyncio.gather(*(end_task(task, _STOP_SECONDS) for task in [*self._attended.values()]))
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                await self._hold(left, timedelta())
        except (*_TROUBLE, TimeoutError):
            _log.warning("calls not left to others before their lease ends", count=len(left))

    async def _keep_attending(self) -> None:
        with self._database.listener.ear(queries.CHANNEL) as ear:
            while True:
                try:
                    await self._hold([*self._attended], _LEASE)
                    await self._take_up()
                except _TROUBLE as error:
                    _log.warning("accepted calls not looked for", error=type(error).__name__)
                await ear.wait(_LOOK_SECONDS * random.uniform(0.75, 1.25))  # noqa: S311  (jitter)

    async def _hold(self, mine: list[Key], lease: timedelta) -> None:
        if mine:
            async with self._database.transaction() as conn:
                await queries.hold_heard(conn, mine, utc_now() + lease)

    async def _take_up(self) -> None:
        now, free = utc_now(), _AT_ONCE - len(self._attended)
        if free <= 0:
            return
        async with self._database.transaction() as conn:
            claimed = await queries.claim_heard(conn, free, now, now + _LEASE)
        for call in claimed:
            key = (call.trunk_id, call.provider_call_id)
            if key not in self._attended:
                self._attended[key] = asyncio.create_task(self._attend(key, call.call_id), name="scribe of a call")

    async def _attend(self, key: Key, call_id: str) -> None:
        name_in_log(call_id=call_id)
        notes = _Notes(self._database, key)
        try:
            await self._hear(key, notes)
            await self._write(key, call_id, notes)
        except Exception:  # its lease runs out, and somebody tries again
            _log.exception("a call is not taken down")
        finally:
            del self._attended[key]

    async def _hear(self, key: Key, notes: "_Notes") -> None:
        """Be on a call until it is over, or nothing more can be heard of it."""
        pause, was_there = _FIRST_PAUSE_SECONDS, False
        while True:
            try:
                call = await self._find(key)
                if call is None:
                    return
                is_there = await self._openai.attend(
                    self._project(key, call), key[1], speaks_first=notes.may_speak_first, on_said=notes.add
                )
                if is_there:
                    pause, was_there = _FIRST_PAUSE_SECONDS, True
                elif was_there or not call.is_open:
                    return
            except (RefusedError, SealBrokenError) as refusal:
                _log.warning("what is said in a call can't be heard", reason=str(refusal))
                return
            except (*_TROUBLE, UnreachableError) as error:
                _log.info("not on a call's socket", error=type(error).__name__)
            await asyncio.sleep(pause * random.uniform(0.75, 1.25))  # noqa: S311  (jitter)
            pause = min(pause * 1.5, _LONGEST_PAUSE_SECONDS)

    async def _find(self, key: Key) -> Row | None:
        async with self._database.read() as conn:
            return await queries.find_heard(conn, *key)

    def _project(self, key: Key, call: Row) -> Project:
        return Project.of(call.mode, call.server, open_credentials(self._sealer, key[0], call.sealed_credentials))

    async def _write(self, key: Key, call_id: str, notes: "_Notes") -> None:
        """Make what was said the call's transcript; while the database is away, the notes wait."""
        while True:
            try:
                async with self._database.transaction() as conn:
                    await notes.save(conn)
                    turns = await queries.take_turns(conn, *key)
                    segments = [(turn.speaker, turn.words, turn.said_at) for turn in turns]
                    await calls.add_transcript(conn, call_id, segments, source="openai", external_id=key[1])
            except _TROUBLE as error:
                _log.warning("transcript not kept yet", error=type(error).__name__)
                await asyncio.sleep(_LONGEST_PAUSE_SECONDS * random.uniform(0.75, 1.25))  # noqa: S311  (jitter)
            else:
                _log.info("transcript kept" if turns else "nothing was said", count=len(turns))
                return


class _Notes:
    """What was heard of a call and is not in the database yet: nothing, while that is there."""

    def __init__(self, database: Database, key: Key) -> None:
        self._database, self._key = database, key
        self._unsaved: list[Mapping[str, Any]] = []

    async def may_speak_first(self) -> bool:
        """Tell whether the agent is to be told now that it begins; True once a call."""
        try:
            async with self._database.transaction() as conn:
                return await queries.may_speak_first(conn, *self._key, utc_now() - _FIRST_WORDS)
        except _TROUBLE:
            return False

    async def add(self, said: Said) -> None:
        """Keep a turn; with the next one, if the database is away."""
        trunk_id, provider_call_id = self._key
        named = {"trunk_id": trunk_id, "provider_call_id": provider_call_id, "item_id": said.item_id}
        self._unsaved.append({**named, "speaker": said.speaker, "words": said.text, "said_at": said.at})
        try:
            async with self._database.transaction() as conn:
                await self.save(conn)
        except _TROUBLE as error:
            _log.warning("what was said is not kept yet", error=type(error).__name__)
            return
        self._unsaved.clear()

    async def save(self, conn: AsyncConnection) -> None:
        """Write down what is not yet."""
        if self._unsaved:
            await queries.add_turns(conn, self._unsaved)

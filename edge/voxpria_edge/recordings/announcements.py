"""What trunks whose calls are recorded have spoken in them: made beforehand by espeak-ng, kept on disk by its hash.

No call waits for speech to be made. What is not there yet can't be spoken, and such a call is not recorded.
"""

import asyncio
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Collection
from pathlib import Path

import structlog
from voxpria_routing.snapshot import Announcement
from voxpria_routing.table import Table

from voxpria_edge.kit.backoff import Backoff

_log = structlog.get_logger(__name__)

_LOOK_SECONDS = 0.5
_DEADLINE_SECONDS = 30.0
_MOST_KEPT = 1000
"""Announcements that are made and kept; trunks beyond that, by id, have none."""
_UNUSED_SECONDS = 86400.0
"""How long one that no trunk has any more is kept, for the calls that it was spoken in."""
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 5.0, 300.0


class SpeechError(Exception):
    """No speech could be made; the message says why, as a sentence without its full stop."""


class Announcements:
    """What can be spoken now."""

    def __init__(self, folder: Path, table: Callable[[], Table]) -> None:
        self._folder, self._table = folder, table
        self._version = -1
        self._missing: dict[str, Announcement] = {}
        """What is yet to be made, by the names of the files."""
        self._pauses: dict[str, Backoff] = {}
        self._next_at: dict[str, float] = {}

    def sound(self, announcement: Announcement) -> Path | None:
        """Return the spoken announcement as a WAV file; None if there is none (yet)."""
        path = self._folder / name_of(announcement)
        return path if path.exists() else None

    async def run(self) -> None:
        """Make what the routes in force ask for, one after the other, until cancelled."""
        while True:
            table = self._table()
            if table.version != self._version:
                self._version = table.version
                await self._follow(table)
            name = next((name for name in self._missing if self._next_at.get(name, 0.0) <= time.monotonic()), None)
            if name is None:
                await asyncio.sleep(_LOOK_SECONDS)
            else:
                await self._make(name)

    async def _follow(self, table: Table) -> None:
        trunks = (table.trunks[id_] for id_ in sorted(table.trunks))
        wanted = {name_of(trunk.announcement): trunk.announcement for trunk in trunks if trunk.announcement}
        wanted = dict(list(wanted.items())[:_MOST_KEPT])
        made = await asyncio.to_thread(self._tidied, wanted.keys())
        self._missing = {name: announcement for name, announcement in wanted.items() if name not in made}
        self._pauses = {name: pause for name, pause in self._pauses.items() if name in self._missing}
        self._next_at = {name: at for name, at in self._next_at.items() if name in self._missing}

    def _tidied(self, wanted: Collection[str]) -> set[str]:
        """Delete what has not been wanted for long; return what there is."""
        made = set()
        for path in self._folder.glob("*.wav"):
            if path.name in wanted:
                os.utime(path)
            elif path.stat().st_mtime < time.time() - _UNUSED_SECONDS:
                path.unlink(missing_ok=True)
                continue
            made.add(path.name)
        return made

    async def _make(self, name: str) -> None:
        announcement, unfinished = self._missing[name], self._folder / f"{name}.part"
        try:
            await _speak(announcement, unfinished)
            unfinished.replace(self._folder / name)
        except (SpeechError, OSError) as error:
            pause = self._pauses.setdefault(name, Backoff(_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS))
            self._next_at[name] = time.monotonic() + pause.next_seconds()
            _log.error("an announcement could not be made", error=str(error), language=announcement.language)
        else:
            del self._missing[name]


async def _speak(announcement: Announcement, path: Path) -> None:
    """Write the words as a WAV, 16 bits, mono; raise SpeechError or OSError."""
    program = shutil.which("espeak-ng")
    if program is None:
        raise SpeechError("espeak-ng is not installed")
    tag = announcement.language.lower()
    while tag:  # RFC 4647 section 3.4: a voice for the language, if there is none for its region
        if await _succeeds([program, "-v", tag, "-b", "1", "--stdin", "-w", str(path)], announcement.text.encode()):
            return
        tag = tag.rpartition("-")[0]
    message = f"espeak-ng has no voice for {announcement.language}"
    raise SpeechError(message)


async def _succeeds(command: list[str], text: bytes) -> bool:
    with tempfile.TemporaryFile() as words:  # no pipe: a program that ends before it has read would break it
        words.write(text)
        words.seek(0)
        process = await asyncio.create_subprocess_exec(
            *command, stdin=words, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
        )
    try:
        async with asyncio.timeout(_DEADLINE_SECONDS):
            await process.wait()
    except TimeoutError as error:
        raise SpeechError("espeak-ng took too long") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode == 0


def name_of(announcement: Announcement) -> str:
    """Return what the file with an announcement's sound is called."""
    digest = hashlib.sha256(f"{announcement.language.lower()}\n{announcement.text}".encode()).hexdigest()
    return f"{digest}.wav"

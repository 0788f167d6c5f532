"""Speech made by espeak-ng, as a subprocess with a deadline; kept on disk, for the same words come again."""

import asyncio
import contextlib
import hashlib
import io
import os
import re
import shutil
import tempfile
import wave
from pathlib import Path

import numpy as np

from voxpria_sandbox.media.g711 import RATE, Samples

MAX_CHARACTERS = 2000
"""Longer text is cut: about two minutes of speech."""
_DEADLINE_SECONDS = 15
_MAX_AUDIO_BYTES = 32 << 20
_MAX_KEPT = 200
_AT_ONCE = 2
_DEFAULT_VOICE = "en-us"
_VOICE_LINE = re.compile(r"\s*\d+\s+(\S+)\s+\S+\s+\S+\s+\S+\s*(.*)")
_OTHER_LANGUAGE = re.compile(r"\((\S+) (\d+)\)")


class SpeechError(Exception):
    """No speech could be made; the message says why, and what to do."""


class Speech:
    """Says text in the language of a BCP 47 tag."""

    def __init__(self, folder: Path, program: str, voices: dict[str, str]) -> None:
        self._folder, self._program, self._voices = folder, program, voices
        self._turns = asyncio.Semaphore(_AT_ONCE)

    @classmethod
    async def start(cls, folder: Path) -> "Speech":
        """Find espeak-ng and its voices; raise SpeechError if it is missing or broken."""
        program = shutil.which("espeak-ng")
        if program is None:
            raise SpeechError("espeak-ng is missing: apt-get install espeak-ng")
        await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
        listing = await _run([program, "--voices"], b"")
        return cls(folder, program, _voices(listing.decode(errors="replace")))

    def voice(self, language: str | None) -> str:
        """Return the voice for a language tag, by dropping subtags until one fits (RFC 4647 section 3.4)."""
        tag = (language or "").lower().replace("_", "-")
        while tag:
            if tag in self._voices:
                return self._voices[tag]
            tag = tag.rpartition("-")[0]
        return _DEFAULT_VOICE

    async def say(self, text: str, language: str | None = None) -> Samples:
        """Return the spoken text at 8 kHz; raise SpeechError. Nothing but spaces is silence."""
        text = " ".join(text.split())[:MAX_CHARACTERS]
        if not text:
            return np.zeros(0, dtype=np.int16)
        voice = self.voice(language)
        digest = hashlib.sha256(f"{voice}\n{text}".encode()).hexdigest()
        return await self._kept(self._folder / f"{digest}.pcm", voice, text)

    async def _kept(self, path: Path, voice: str, text: str) -> Samples:
        with contextlib.suppress(OSError):
            return await asyncio.to_thread(_read, path)
        async with self._turns:
            sound = await _run([self._program, "-v", voice, "-b", "1", "--stdin", "--stdout"], text.encode())
        samples = await asyncio.to_thread(_resampled, sound)
        await asyncio.to_thread(_write, path, samples)
        return samples


async def _run(command: list[str], text: bytes) -> bytes:
    with tempfile.TemporaryFile() as words:  # no pipe: a program that ends before it has read would break it
        words.write(text)
        words.seek(0)
        process = await asyncio.create_subprocess_exec(
            *command, stdin=words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
    try:
        async with asyncio.timeout(_DEADLINE_SECONDS):
            output, _ = await process.communicate()
    except TimeoutError as error:
        raise SpeechError("espeak-ng took too long") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0 or len(output) > _MAX_AUDIO_BYTES:
        message = f"espeak-ng failed with code {process.returncode}"
        raise SpeechError(message)
    return output


def _voices(listing: str) -> dict[str, str]:
    """Return the voice of each language tag in `espeak-ng --voices`: its own, else the one that ranks it lowest."""
    own: dict[str, str] = {}
    others: list[tuple[int, str, str]] = []
    for line in listing.splitlines()[1:]:
        if found := _VOICE_LINE.fullmatch(line):
            own.setdefault(found[1].lower(), found[1])
            others += [(int(rank), tag.lower(), found[1]) for tag, rank in _OTHER_LANGUAGE.findall(found[2])]
    borrowed = {tag: voice for _, tag, voice in sorted(others, reverse=True)}
    return {**borrowed, "en": _DEFAULT_VOICE, **own}


def _resampled(sound: bytes) -> Samples:
    """Return the samples of a WAV at 8 kHz, by cutting its spectrum (both lengths span the same time exactly)."""
    try:
        with wave.open(io.BytesIO(sound)) as file:
            rate = file.getframerate()
            # a WAV written to a pipe can't know its length: what is there counts
            data = file.readframes(_MAX_AUDIO_BYTES)
    except (wave.Error, EOFError) as error:
        raise SpeechError("espeak-ng gave no sound") from error
    samples = np.frombuffer(data[: len(data) // 2 * 2], dtype="<i2").astype(np.float64)
    step = rate // np.gcd(rate, RATE)
    padded = np.pad(samples, (0, int(-len(samples) % step)))
    length = len(padded) * RATE // rate
    spectrum = np.fft.rfft(padded)[: length // 2 + 1]
    return np.asarray(np.clip(np.fft.irfft(spectrum, length) * RATE / rate, -32768, 32767), dtype=np.int16)


def _read(path: Path) -> Samples:
    samples = np.frombuffer(path.read_bytes(), dtype="<i2").astype(np.int16)
    os.utime(path)
    return samples


def _write(path: Path, samples: Samples) -> None:
    """Keep a file, whole or not at all; the ones unused for longest go."""
    partial = path.with_suffix(f".{os.getpid()}.{os.urandom(4).hex()}")
    partial.write_bytes(samples.astype("<i2").tobytes())
    partial.replace(path)
    kept = sorted(path.parent.glob("*.pcm"), key=lambda file: file.stat().st_mtime)
    for old in kept[:-_MAX_KEPT]:
        old.unlink(missing_ok=True)

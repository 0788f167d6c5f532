"""What is asked about a capture, and what comes of it."""

from dataclasses import dataclass, field
from pathlib import Path

from voxpria_routing.events import Direction


@dataclass(frozen=True)
class Announced:
    """What the edge itself said to the caller: no packet of it is captured."""

    sound: Path
    """A WAV: 16 bits, mono."""
    at: float
    """When it began, seconds since 1970."""


@dataclass(frozen=True, kw_only=True)
class CaptureJob:
    """What to read, and how to tell the legs apart."""

    pcap: Path
    caller_ports: frozenset[int]
    """rtpengine's own RTP ports on the leg of the caller."""
    agent_ports: frozenset[int]
    caller_codecs: dict[int, str] = field(default_factory=dict)
    """Dynamic payload types on the leg of the caller, e.g. `{96: "opus"}`; static ones are known."""
    agent_codecs: dict[int, str] = field(default_factory=dict)
    began_at: float
    """Seconds since 1970. A packet that claims a time outside the call's comes from a damaged file."""
    ended_at: float
    recording: Path | None = None
    """Where to put the mp3; None: only measure."""
    announcement: Announced | None = None
    """Comes first in the recording, on the agent's side."""


@dataclass(frozen=True, kw_only=True)
class MediaResult:
    """What came of it. A side that sent no audio is None."""

    caller: Direction | None
    agent: Direction | None
    caller_sound: "Sound | None" = None
    agent_sound: "Sound | None" = None
    recording_seconds: float = 0.0
    recording_bytes: int = 0
    problems: tuple[str, ...] = ()
    """What could not be read or decoded, for a person to read."""


@dataclass(frozen=True, kw_only=True)
class Sound:
    """What a side's packets held, to the ear."""

    first_at: float
    """When its first packet of audio arrived, seconds since 1970."""
    seconds: float
    """How much audio there was."""
    loud_seconds: float
    """How much of it was louder than an idle line."""

"""What an edge has going on, as far as a decision depends on it. Read here, kept by the edge."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from voxpria_routing.snapshot import Mode, Trunk


@dataclass
class Load:
    """Open calls and recent starts by trunk id and by `account_key`; trunks whose servers are down."""

    now_seconds: float = 0.0
    """The clock of `starts`: monotonic."""
    open_calls: Mapping[str, int] = field(default_factory=dict)
    starts: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """When the last calls began, oldest first; as many as any limit looks back on."""
    down: Mapping[str, str] = field(default_factory=dict)
    """Servers that get calls only as a last resort: by `server_key`, why, as a sentence without its full stop."""
    tried_enough: Collection[str] = frozenset()
    """Those of them that as many calls are trying as may: none goes there now."""


@dataclass(frozen=True)
class Full:
    """A limit that is reached."""

    limit: Literal["calls", "rate"]
    sentence: str
    retry_after_seconds: int


IDLE = Load()
"""An edge on which nothing happens."""
_BUSY_RETRY_SECONDS = 5


def account_key(account_id: str, mode: Mode) -> str:
    """Return the key under which an account's calls are counted."""
    return f"{account_id}/{mode}"


def server_key(trunk: Trunk) -> str:
    """Return the key of a trunk's server; another server on the trunk is another key."""
    return f"{trunk.id} {trunk.next_hop or trunk.server}:{trunk.port}/{trunk.transport}"


def starts_looked_at(per_second: float) -> int:
    """Return how many starts `full` looks back on for a rate."""
    return max(1, int(per_second))


def full(load: Load, key: str, max_calls: int | None, per_second: float | None) -> Full | None:
    """Return the limit that one more call would break, or None.

    No window of the length that takes `per_second` calls, or one if less than one a second, ever holds more of them.
    """
    if max_calls is not None and load.open_calls.get(key, 0) >= max_calls:
        sentence = f"{max_calls} of {max_calls} calls are open" if max_calls else "it may have no calls"
        return Full("calls", sentence, _BUSY_RETRY_SECONDS)
    if per_second is None:
        return None
    count = starts_looked_at(per_second)
    recent = load.starts.get(key, ())
    if len(recent) < count:
        return None
    wait_seconds = recent[-count] + count / per_second - load.now_seconds
    if wait_seconds <= 0:
        return None
    return Full("rate", f"{per_second:g} calls a second are reached", max(1, math.ceil(wait_seconds)))

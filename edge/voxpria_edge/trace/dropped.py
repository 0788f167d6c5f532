"""INVITEs that Kamailio drops without a word, as a header is missing: the mirror of all messages shows them."""

import re
import time
import uuid
from collections.abc import Callable

from voxpria_edge.proxy import messages
from voxpria_edge.trace.hep import Mirrored

_MOST_A_SECOND = 20
"""Nothing in front of us keeps strangers from sending them."""
_LONGEST_HEAD = 4096
_NEEDED = {b"from": b"f", b"to": b"t", b"call-id": b"i", b"cseq": b"cseq"}


def is_dropped(payload: bytes) -> bool:
    """Tell whether a message is an INVITE without one of the headers that Kamailio looks at none without."""
    if not payload.startswith(b"INVITE "):
        return False
    head = payload.partition(b"\r\n\r\n")[0].lower()
    return any(
        b"\n%s:" % name not in head and not re.search(rb"\n(%s|%s)[ \t]*:" % (name, short), head)
        for name, short in _NEEDED.items()
    )


class Dropped:
    """Has them told like what Kamailio refuses by itself, a few a second at most."""

    def __init__(self, tell: Callable[[messages.Broken], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._tell, self._clock = tell, clock
        self._second, self._count = 0, 0

    def take(self, seen: Mirrored) -> None:
        """Take one that came here."""
        second = int(self._clock())
        if second != self._second:
            self._second, self._count = second, 0
        self._count += 1
        if self._count > _MOST_A_SECOND:
            return
        host, port = seen.source
        self._tell(
            messages.Broken(
                id=str(uuid.uuid4()),
                at=f"{seen.at:.6f}",
                fault="headers",
                bytes=len(seen.payload),
                source=host,
                port=port,
                transport=seen.transport,
                head=messages.base64_of(seen.payload[:_LONGEST_HEAD]),
                is_kept=0,
            )
        )

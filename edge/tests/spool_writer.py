"""Writes into a spool as fast as it can, and prints each change's name once it was told that it is on disk.

`python spool_writer.py FILE`: until somebody kills it.
"""

import asyncio
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

from voxpria_edge.calls.call import Call
from voxpria_edge.calls.spool import Change, Spool
from voxpria_routing.events import Ringing

AT = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)


def change(name: str) -> Change:
    """An event, a call and a heard message, all of one name."""
    call = Call(
        id=name,
        sip_call_id=name,
        from_tag="",
        asked="",
        opened_at=AT,
        max_duration_seconds=1,
        is_captured=False,
        is_dialled=True,
    )
    return Change([Ringing(id=name, call_id=name, at=AT)], {name: call}, name)


async def _write(spool: Spool, writer: int) -> None:
    count = 0
    while True:
        name = f"{os.getpid()}-{writer}-{count}"
        await spool.commit(change(name))
        os.write(1, f"{name}\n".encode())
        count += 1


async def main(path: Path) -> None:
    spool = Spool(path)
    await spool.open()
    await asyncio.gather(spool.run(), *(_write(spool, writer) for writer in range(8)))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))

"""What a delivery's post costs with nothing around it: a client of aiohttp's, no signature, no record, no rate.

python -m bench.deliveries.posts URL COUNT: posts so many events, prints how many a second.
"""

import asyncio
import json
import sys
import time

import aiohttp

_AT_ONCE = 160
"""As many as a courier's lanes let out to the bench's 20 webhooks."""


async def _post(url: str, count: int) -> float:
    """Return the posts a second."""
    numbers = iter(range(count))

    async def go_on(session: aiohttp.ClientSession) -> None:
        for number in numbers:
            body = {"event": "call.ended", "data": {"call_id": f"call_{number}", "explanation": "x" * 200}}
            async with session.post(url, data=json.dumps(body)) as answer:
                assert answer.status == 200
                await answer.read()

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        began_at = time.monotonic()
        await asyncio.gather(*(go_on(session) for _ in range(_AT_ONCE)))
        return count / (time.monotonic() - began_at)


if __name__ == "__main__":
    print(asyncio.run(_post(sys.argv[1], int(sys.argv[2]))))

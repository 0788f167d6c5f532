"""The sandbox's documented numbers: what becomes of each when a provider is asked to take it on."""

import asyncio

REFUSED = "+15555551235"
SLOW = "+15555551236"
SLOW_SECONDS = 15.0


class NumberRefusedError(Exception):
    """The number is not taken; the message says why."""


async def take_on(number: str, slow_seconds: float = SLOW_SECONDS) -> None:
    """Take a number on: the slow one takes its time. Raises NumberRefusedError for the one that always fails."""
    if number == REFUSED:
        raise NumberRefusedError(f"{REFUSED} is the sandbox's number that is always refused")
    if number == SLOW:
        await asyncio.sleep(slow_seconds)

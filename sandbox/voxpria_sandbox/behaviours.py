"""What becomes of a call to the SIP agent: whether and when it answers, and what it does then; a function a behaviour.

The magic numbers end like the SIP code or the thing that they give; each is the real thing over SIP and RTP.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

DEFAULT_MESSAGE = "Hello. You have reached the sandbox of VoxPria: this is a simulation, and I am not a real agent."
TRANSFERRED_TO = "+15555551234"
Behaviour = Callable[["Conversation"], Awaitable[None]]

_MENU = "Press one to hear a word, or two to be hung up on."
_MENU_SECONDS = 10.0
_LATE_SECONDS = 5.0
_DROP_SECONDS = 10.0
_SLOW_SECONDS = 10.0
_TRANSFER_GRACE_SECONDS = 10.0


class Conversation(Protocol):
    """What a behaviour sees of its call. It is cancelled when the call ends; when it returns, the agent hangs up."""

    number: str
    """The number called."""
    first_message: str | None
    """What the caller of the agent asked it to say first."""

    async def say(self, text: str) -> None:
        """Speak, and return when it has been said."""
        ...

    async def next_digit(self, seconds: float) -> str | None:
        """Return the next key that the caller presses (RFC 4733); None if none is in time."""
        ...

    async def transfer(self, number: str) -> int:
        """Ask the caller to call somebody else instead (RFC 3515); return the final code of its answer."""
        ...

    def echo(self) -> None:
        """Send back whatever is heard from now on."""
        ...

    def unmute(self) -> None:
        """Begin to send audio."""
        ...


@dataclass(frozen=True)
class Plan:
    """What becomes of a call, where it is not the agent's usual."""

    refusal: tuple[int, str] | None = None
    """The final answer instead of an answer."""
    ring_seconds: float | None = None
    """How long it rings; None is as long as always, infinity until the caller gives up."""
    is_muted: bool = False
    """Send no audio at all, until told otherwise."""
    lead: Behaviour | None = None


async def converse(conversation: Conversation) -> None:
    """Say the first message, then listen until the caller hangs up."""
    await conversation.say(conversation.first_message or DEFAULT_MESSAGE)
    await asyncio.Event().wait()


async def stay_silent(_: Conversation) -> None:
    """Send nothing, and listen until the caller hangs up."""
    await asyncio.Event().wait()


async def speak_late(conversation: Conversation) -> None:
    """Send no packet for some seconds, then converse."""
    await asyncio.sleep(_LATE_SECONDS)
    conversation.unmute()
    await converse(conversation)


async def drop(conversation: Conversation) -> None:
    """Hang up in the middle of the conversation."""
    talk = asyncio.create_task(converse(conversation))
    try:
        await asyncio.sleep(_DROP_SECONDS)
    finally:
        talk.cancel()


async def offer_a_menu(conversation: Conversation) -> None:
    """Say what each key does, and do what is pressed; hang up on two, or when nothing is pressed."""
    await conversation.say(_MENU)
    while (digit := await conversation.next_digit(_MENU_SECONDS)) not in ("2", None):
        await conversation.say("Word." if digit == "1" else f"There is no {digit}. {_MENU}")


async def echo(conversation: Conversation) -> None:
    """Send everything back, until the caller hangs up."""
    conversation.echo()
    await asyncio.Event().wait()


async def transfer(conversation: Conversation) -> None:
    """Send the caller on to another number; say so if that is refused."""
    await conversation.say("One moment, I transfer you.")
    code = await conversation.transfer(TRANSFERRED_TO)
    if code // 100 != 2:
        await conversation.say("The transfer was refused.")
        return
    await asyncio.sleep(_TRANSFER_GRACE_SECONDS)


MAGIC_NUMBERS: dict[str, Plan] = {
    "+15555552486": Plan(refusal=(486, "Busy Here")),
    "+15555552603": Plan(refusal=(603, "Decline")),
    "+15555552503": Plan(refusal=(503, "Service Unavailable")),
    "+15555552404": Plan(refusal=(404, "Not Found")),
    "+15555552408": Plan(ring_seconds=float("inf")),
    "+15555552010": Plan(ring_seconds=_SLOW_SECONDS),
    "+15555552001": Plan(is_muted=True, lead=stay_silent),
    "+15555552005": Plan(is_muted=True, lead=speak_late),
    "+15555552110": Plan(lead=drop),
    "+15555552012": Plan(lead=offer_a_menu),
    "+15555552002": Plan(lead=echo),
    "+15555552302": Plan(lead=transfer),
}
USUAL = Plan()


def plan_of(number: str) -> Plan:
    """Return what becomes of a call to a number."""
    return MAGIC_NUMBERS.get(number, USUAL)

"""What the desk needs of whoever stands in the middle of calls (`bridge.bridges.Bridges`)."""

from pathlib import Path
from typing import Protocol

from voxpria_routing.decision import Dial
from voxpria_routing.events import Side

from voxpria_edge.calls.call import Call
from voxpria_edge.calls.half import Half
from voxpria_edge.proxy import messages


class Middle(Protocol):
    """What stands in the middle of the calls that we place (`bridge.bridges.Bridges`)."""

    def half_of(self, invite: messages.Invite) -> Half | None:
        """Return which half of which call an INVITE is."""
        ...

    def is_own(self, invite: messages.Invite) -> bool:
        """Tell whether an INVITE came from there, in this run or the last."""
        ...

    def half(self, record: str) -> Half | None:
        """Return the half that is being dialled and has this record."""
        ...

    @property
    def place(self) -> str:
        """Where calls are sent in which somebody is to be told something first: `host:port`."""
        ...

    def announce(self, call: Call, decision: Dial, sound: Path) -> None:
        """Know a call that is about to come in; both sides are connected when the one that is recorded knows this."""
        ...

    async def hang_up(self, call_id: str) -> bool:
        """End both halves of a call, if it is one of ours."""
        ...

    def done(self, call: Call, by: Side | None) -> None:
        """Be done with a call that is over, ended by one side."""
        ...

"""One half of a call in whose middle we are: an INVITE of ours, as Kamailio is about to ask about it."""

from dataclasses import dataclass, field

from voxpria_routing.decision import Dial
from voxpria_routing.snapshot import Trunk
from voxpria_sip.dialog import Dialog
from voxpria_sip.message import Response

_SPEAKS_OTHERWISE = {415, 488, 606}
"""Answers of a server that may speak something that was not offered yet."""


@dataclass
class Half:
    """One side, as it is called at one trunk's server, and what comes of it."""

    call_id: str
    record: str
    """The call's id where its tries are the call's: the callee's half of one that goes out. Else one of its own."""
    decision: Dial
    at_trunk: int
    variables: dict[str, str] = field(default_factory=dict)
    has_another_offer: bool = False
    """Whether the server is offered more if it does not speak what it is offered now."""
    following: Dial | None = None
    """The decision with the trunk that is to be tried next right behind this one; None if none is."""
    cause: str = ""
    """Why it came to nothing, in Kamailio's words."""
    answer: Response | None = None
    """The final one."""
    dialog: Dialog | None = None
    """What its 2xx has opened."""

    @property
    def target(self) -> Trunk:
        """The trunk whose server is dialled."""
        return self.decision.targets[self.at_trunk]

    @property
    def is_refused(self) -> bool:
        """Whether Kamailio has been told to refuse it: its server did not take it."""
        return self.cause != ""

    @property
    def code(self) -> int:
        """Of its final answer; 0 is none."""
        return self.answer.status if self.answer else 0

    @property
    def description(self) -> str:
        """The session description in its final answer."""
        return self.answer.body.decode(errors="replace") if self.answer else ""

    def is_offered_more(self, code: int) -> bool:
        """Tell whether a server that has answered with this code is asked once more."""
        return self.has_another_offer and code in _SPEAKS_OTHERWISE

    def next(self) -> "Half | None":
        """Return the half as it is tried at the next trunk, if it is."""
        if self.following is None:
            return None
        at_trunk = self.at_trunk + 1
        record = self.record if self.record == self.call_id else f"{self.call_id}.{at_trunk}"
        return Half(self.call_id, record, self.following, at_trunk, self.variables)

"""One half of a call that we place, as its INVITE comes to Kamailio."""

from dataclasses import dataclass, field

from voxpria_routing.decision import Dial
from voxpria_routing.snapshot import Trunk


@dataclass
class Half:
    """An INVITE of ours, as Kamailio is about to ask about it."""

    call_id: str
    record: str
    decision: Dial
    at_trunk: int
    variables: dict[str, str] = field(default_factory=dict)
    code: int = 0
    """Of its final answer; 0 is none."""
    cause: str = ""
    """Why it came to nothing, in Kamailio's words."""

    @property
    def target(self) -> Trunk:
        """The trunk whose server is dialled."""
        return self.decision.targets[self.at_trunk]

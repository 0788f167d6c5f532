"""One INVITE while it is judged: the facts, and what has been found so far. Each part of the decision adds to it."""

import ipaddress

from voxpria_routing.decision import Cause, Explanation, Invite, Reject
from voxpria_routing.dialled import clean
from voxpria_routing.digest import Digest
from voxpria_routing.load import Load
from voxpria_routing.snapshot import Number, Trunk
from voxpria_routing.table import IPAddress, Table


class Case:
    """The facts, and the findings as they stand; `tried` is their list for a person to read."""

    def __init__(self, table: Table, invite: Invite, load: Load) -> None:
        self.table, self.invite, self.load = table, invite, load
        self.source: IPAddress = ipaddress.ip_address(invite.source_address)
        self.tried: list[str] = []
        self.called = clean(invite.request_user)
        self.caller = clean(invite.from_user)
        self.proven_by: Digest | None = None
        self.is_outbound = False

    def note(self, line: str) -> None:
        """Say what was looked at; the same is said once."""
        if line not in self.tried:
            self.tried.append(line)

    def reject(
        self,
        cause: Cause,
        summary: str,
        *,
        mend: str,
        nearest: str | None = None,
        number: Number | None = None,
        carrier: Trunk | None = None,
        is_stranger: bool = False,
        is_stale: bool = False,
        retry_after_seconds: int | None = None,
    ) -> Reject:
        """Return the refusal, with all that was found."""
        return Reject(
            cause=cause,
            explanation=Explanation(summary=summary, tried=tuple(self.tried), nearest=nearest, mend=mend),
            called=self.called,
            caller=self.caller,
            number=number,
            carrier=carrier,
            is_outbound=self.is_outbound,
            is_stranger=is_stranger,
            is_stale=is_stale,
            retry_after_seconds=retry_after_seconds,
            proven_by=self.proven_by,
        )


def same_owner(one: Trunk, other: Trunk) -> bool:
    """Tell whether two trunks are of one account and mode."""
    return (one.account_id, one.mode) == (other.account_id, other.mode)

"""INVITEs that are asked about twice, as Kamailio died before their caller had an answer: one call, one record."""

from voxpria_edge.calls.book import Book
from voxpria_edge.calls.call import Call, marks_of
from voxpria_edge.kit.lately import Lately
from voxpria_edge.proxy import messages

REPEATED_SECONDS = 32.0
"""How long an INVITE that is not answered is repeated (RFC 3261 section 17.1.1.2: 64 times T1)."""


class Repeats:
    """What has become of INVITEs that a Kamailio had which is no more; one that lives knows its own."""

    def __init__(self, book: Book) -> None:
        self._book = book
        self._unanswered: dict[str, str] = {}
        """Ids of calls, by the marks of their INVITEs."""
        self._refused = Lately(REPEATED_SECONDS)

    def look(self) -> None:
        """See which calls nobody has answered yet: Kamailio is there (again)."""
        self._unanswered = {call.marks: call.id for call in self._book.open_calls if _may_be_repeated(call)}

    def call_of(self, invite: messages.Invite) -> Call | None:
        """Return the call that this INVITE has opened already; once."""
        call = self._book.open_call(self._unanswered.pop(marks_of(invite), ""))
        return call if call is not None and call.answered_at is None else None

    def refused(self, invite: messages.Invite) -> bool:
        """Note that an INVITE is refused; False if it was lately, and so has its record."""
        return self._refused.is_new(marks_of(invite))


def _may_be_repeated(call: Call) -> bool:
    """Tell whether a caller may still send its INVITE again: not an agent whose callee is being called meanwhile."""
    return call.marks != "" and call.answered_at is None and (call.bridge is None or call.is_ours_to_answer)

"""What an operator reads of refused calls that are nobody's."""

import pytest
from kamailio_words import STRANGER, TABLE, heard, invite
from voxpria_edge import calls, messages
from voxpria_edge.strangers import Strangers
from voxpria_routing.decide import decide

pytestmark = pytest.mark.unit


class Lines(list[dict[str, object]]):
    """A log, as far as it is used here."""

    def info(self, _event: str, **fields: object) -> None:
        self.append(fields)


def test_the_log_says_what_came_and_why_it_was_refused_a_few_times_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    message = heard(invite(to="+15550009999", source=STRANGER))
    assert isinstance(message, messages.Invite)
    decision = decide(TABLE, calls.question(message))
    now = [5.0]
    strangers = Strangers(lambda: now[0])
    lines = Lines()
    monkeypatch.setattr("voxpria_edge.strangers._log", lines)
    for _ in range(1000):
        strangers.note(f"{STRANGER}:5060", "udp", decision)
    now[0] = 6.5
    strangers.note(f"{STRANGER}:5060", "udp", decision)
    assert len(lines) == 11
    assert lines[0]["called"] == "+15550009999"
    assert STRANGER in str(lines[0]["why"])
    assert [line["not_told_of_before"] for line in lines] == [0] * 10 + [990]

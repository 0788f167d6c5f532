"""What an operator reads of refused calls that are nobody's."""

import asyncio

import msgspec
import pytest
from kamailio_words import STRANGER, TABLE, heard, invite
from voxpria_edge.admission.strangers import Strangers
from voxpria_edge.calls import beginnings
from voxpria_edge.control_plane import ControlPlaneError
from voxpria_edge.proxy import messages
from voxpria_routing.decide import decide
from voxpria_routing.decision import Decision
from voxpria_routing.edge_api import MOST_REFUSED, OTHERS, Refused
from voxpria_routing.edge_api import Strangers as News

pytestmark = pytest.mark.unit


class Lines(list[dict[str, object]]):
    """A log, as far as it is used here."""

    def info(self, _event: str, **fields: object) -> None:
        self.append(fields)


def refused(to: str = "+15550009999", source: str = STRANGER) -> Decision:
    message = heard(invite(to=to, source=source))
    assert isinstance(message, messages.Invite)
    return decide(TABLE, beginnings.question(message))


def test_what_came_is_summed_by_source_however_many_they_are() -> None:
    strangers = Strangers()
    for n in range(3000):
        strangers.note(f"192.0.{n % 1000 >> 8}.{n % 1000 & 255}:5060", "udp", refused())
    strangers.note("[2001:db8::1]:5060", "tcp", refused())
    told = strangers.take()
    assert len(told) <= MOST_REFUSED
    assert sum(one.count for one in told) == 3001
    assert (told[0].source, told[0].count, told[0].called) == ("192.0.0.0", 3, "+15550009999")
    assert told[0].mend == refused().explanation.mend
    assert told[-1].source == OTHERS
    assert strangers.take() == ()


def test_what_a_stranger_writes_can_be_told() -> None:
    strangers = Strangers()
    decision = msgspec.structs.replace(refused(), called="+1\x00\udcff" + "5" * 100)
    strangers.note("192.0.2.1:5060", "udp", decision)
    (told,) = msgspec.json.decode(msgspec.json.encode(strangers.take()), type=list[Refused])
    assert told.called == "+1?" + "5" * 60


async def test_what_is_not_taken_is_told_with_what_comes_after(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("voxpria_edge.admission.strangers._EVERY_SECONDS", 0.01)
    strangers, told = Strangers(), asyncio.Queue[News]()
    failures = iter([ControlPlaneError("away"), ControlPlaneError("away")])

    class Deaf:
        """A control plane that does not take the first two."""

        async def tell(self, news: News) -> None:
            for failure in failures:
                strangers.note("192.0.2.1:5060", "udp", refused())
                raise failure
            await told.put(news)

    strangers.note("192.0.2.1:5060", "udp", refused())
    telling = asyncio.create_task(strangers.tell("edge_1", Deaf()))  # type: ignore[arg-type]
    async with asyncio.timeout(50):
        news = await told.get()
    telling.cancel()
    assert [(one.source, one.count) for one in news.refused] == [("192.0.2.1", 3)]


def test_the_log_says_what_came_and_why_it_was_refused_a_few_times_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    message = heard(invite(to="+15550009999", source=STRANGER))
    assert isinstance(message, messages.Invite)
    decision = decide(TABLE, beginnings.question(message))
    now = [5.0]
    strangers = Strangers(lambda: now[0])
    lines = Lines()
    monkeypatch.setattr("voxpria_edge.admission.strangers._log", lines)
    for _ in range(1000):
        strangers.note(f"{STRANGER}:5060", "udp", decision)
    now[0] = 6.5
    strangers.note(f"{STRANGER}:5060", "udp", decision)
    assert len(lines) == 11
    assert lines[0]["called"] == "+15550009999"
    assert STRANGER in str(lines[0]["why"])
    assert [line["not_told_of_before"] for line in lines] == [0] * 10 + [990]

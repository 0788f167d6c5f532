"""Which calls are recorded only if something is said first, and what that is."""

from pathlib import Path

import msgspec
import pytest
from routes_of_tests import number_on, trunk_to
from voxpria_edge.admission import consent
from voxpria_routing.decision import Dial, Explanation
from voxpria_routing.media import Offered
from voxpria_routing.snapshot import Announcement

pytestmark = pytest.mark.unit

OURS, THEIRS = (
    Announcement(text="Of the carrier's.", language="en"),
    Announcement(text="Of the agent's.", language="en"),
)
CARRIER = trunk_to(1, id="trunk_carrier", is_recorded=True, announcement=OURS)
AGENT = trunk_to(2, id="trunk_agent", announcement=THEIRS)
INBOUND = Dial(
    number=number_on(CARRIER, "+15555551234", agent_trunk_id=AGENT.id),
    carrier=CARRIER,
    targets=(AGENT,),
    caller="+13035550199",
    called="+15555551234",
    offered=Offered(codecs=("G729", "PCMA"), encryption="none"),
    explanation=Explanation(summary="It goes to the agent."),
)
OUTBOUND = msgspec.structs.replace(INBOUND, carrier=AGENT, targets=(CARRIER,), is_outbound=True)


def sound_of(announcement: Announcement) -> Path:
    return Path(announcement.text)


def is_recorded(decision: Dial) -> bool:
    return any(trunk.is_recorded for trunk in (decision.carrier, *decision.targets))


def test_the_carriers_announcement_comes_first_whichever_way_a_call_goes() -> None:
    for agreed in (consent.of_caller(INBOUND, sound_of), consent.of_callee(OUTBOUND, sound_of)):
        assert agreed.sound == Path(OURS.text)
        assert is_recorded(agreed.decision)


def test_a_call_that_is_not_recorded_or_not_announced_goes_on_as_it_is() -> None:
    silent = msgspec.structs.replace(AGENT, announcement=None)
    unrecorded = msgspec.structs.replace(CARRIER, is_recorded=False)
    for changes in (
        {"carrier": unrecorded},
        {"carrier": msgspec.structs.replace(CARRIER, announcement=None), "targets": (silent,)},
    ):
        decision = msgspec.structs.replace(INBOUND, **changes)
        assert consent.of_caller(decision, sound_of) == consent.Consent(decision=decision)


@pytest.mark.parametrize(
    ("decision", "word"),
    [
        (msgspec.structs.replace(OUTBOUND, offered=None), "offered no media"),
        (msgspec.structs.replace(INBOUND, offered=None), "no codec"),
        (msgspec.structs.replace(INBOUND, offered=Offered(codecs=("G729",), encryption="none")), "no codec"),
    ],
)
def test_what_can_not_be_announced_is_not_recorded_and_says_why(decision: Dial, word: str) -> None:
    agreed = consent.of_caller(decision, sound_of)
    assert agreed.sound is None
    assert not is_recorded(agreed.decision)
    assert word in str(agreed.unrecorded)


def test_what_has_not_been_made_is_not_spoken() -> None:
    agreed = consent.of_callee(OUTBOUND, lambda _: None)
    assert not is_recorded(agreed.decision)
    assert "has not been able to make its sound" in str(agreed.unrecorded)

"""A call's record from its events: every ending, any order, any repetition."""

from datetime import UTC, datetime, timedelta
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from voxpria_routing.decision import Cause, Explanation
from voxpria_routing.events import (
    Answered,
    Attempted,
    Direction,
    EndCause,
    Ended,
    Invited,
    Measured,
    Queued,
    Recorded,
    RecordingFailed,
    Ringing,
)
from voxpria_server.calls import quality
from voxpria_server.calls.explain import explanation
from voxpria_server.calls.state import replay

pytestmark = pytest.mark.unit
START = datetime(2026, 1, 2, 3, 4, 5, 600000, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def invited(**changes):
    values = {
        "id": "evt_i",
        "call_id": "call_1",
        "at": START,
        "account_id": "acct_1",
        "mode": "test",
        "from_": "+13038921234",
        "to": "+15555551234",
        "number_id": "phone_1",
        "trunk_id": "trunk_1",
        "agent_id": "agent_1",
        "edge_id": "edge_1",
        "sip_call_id": "a@b",
        "source": "127.0.0.8:5060",
        "transport": "udp",
        "max_duration_seconds": 60,
        "explanation": Explanation(summary="It goes to the agent.", tried=("number known",)),
    }
    return Invited(**values | changes)


def ended(cause="hangup", code=200, reason="OK", by="caller", seconds=10.0, **more):
    return Ended(
        id=more.pop("id", "evt_e"),
        call_id="call_1",
        at=at(seconds),
        cause=cause,
        by=by,
        sip_code=code,
        sip_reason=reason,
        **more,
    )


RINGING = Ringing(id="evt_r", call_id="call_1", at=at(0.2))
ANSWERED = Answered(id="evt_a", call_id="call_1", at=at(1.1), recording=True)
SIDE = Direction(packets=500, lost=0, loss_percent=0.0, jitter_ms=1.0, mos=4.4, codec="PCMU")
MEASURED = Measured(id="evt_m", call_id="call_1", at=at(11), source="packets", caller=SIDE, agent=None)
RECORDED = Recorded(id="evt_d", call_id="call_1", at=at(12), duration_seconds=9.0, size_bytes=1000)
WHOLE = [invited(), RINGING, ANSWERED, ended(), MEASURED, RECORDED]
BROKEN_RECORDING = [*WHOLE[:-1], RecordingFailed(id="evt_f", call_id="call_1", at=at(12), detail="disk full")]
UNANSWERED = [invited(), RINGING, ended("rejected", 486, "Busy Here", "agent", 3)]
REFUSED = [invited(refusal=Cause.NUMBER_INACTIVE), ended("refused", 480, "Temporarily Unavailable", "edge", 0)]


@pytest.mark.parametrize(
    ("cause", "code", "status"),
    [
        ("rejected", 486, "busy"),
        ("rejected", 600, "busy"),
        ("rejected", 408, "no-answer"),
        ("rejected", 480, "no-answer"),
        ("rejected", 404, "failed"),
        ("rejected", 603, "failed"),
        ("no_answer", 408, "no-answer"),
        ("canceled", 487, "canceled"),
        ("refused", 480, "failed"),
        ("refused", 403, "failed"),
        ("unreachable", 408, "failed"),
        ("unreachable", 503, "failed"),
        ("lost", 0, "failed"),
    ],
)
def test_status_of_an_unanswered_call(cause, code, status):
    call = replay([invited(), RINGING, ended(cause, code)])
    assert (call.status, call.duration_seconds, call.answered_at) == (status, 0, None)


@pytest.mark.parametrize("cause", ["hangup", "max_duration", "media_timeout", "session_expired", "lost"])
def test_an_answered_call_is_completed_however_it_ends(cause):
    call = replay([invited(), ANSWERED, ended(cause)])
    assert (call.status, call.duration_seconds) == ("completed", 9)


def test_a_call_in_progress():
    call = replay([invited(), RINGING, ANSWERED])
    assert (call.status, call.is_over, call.duration_seconds) == ("in-progress", False, 0)


@pytest.mark.parametrize(("seconds", "duration"), [(1.5, 0), (1.6, 1), (2.59, 1), (2.6, 2), (0.5, 0)])
def test_duration_is_rounded_to_the_second(seconds, duration):
    assert replay([invited(), ANSWERED, ended(seconds=seconds)]).duration_seconds == duration


@pytest.mark.parametrize("story", [WHOLE, BROKEN_RECORDING, UNANSWERED, REFUSED])
@given(data=st.data())
def test_any_order_and_repetition_converges(story, data):
    repeated = story + data.draw(st.lists(st.sampled_from(story), max_size=4))
    shuffled = data.draw(st.permutations(repeated))
    assert replay(shuffled) == replay(story)


@given(st.permutations(WHOLE))
def test_a_call_that_is_over_stays_over_with_the_same_end(story):
    calls = [replay(story[:n]) for n in range(len(story) + 1)]
    over = [call for call in calls if call and call.is_over]
    assert over
    assert calls[-len(over) :] == over
    assert len({(call.status, call.duration_seconds, call.ended.at) for call in over}) == 1


def test_the_first_ending_stands():
    first = [invited(), ANSWERED, ended()]
    late = ended("lost", 0, "", "edge", 500, id="evt_late")
    assert replay([*first, late]) == replay(first)


def test_an_end_that_waits_for_its_answer_is_used_when_nothing_else_comes():
    call = replay([invited(), ended()])
    assert not call.is_over
    closed = replay([invited(), ended(), ended("lost", 0, "", "edge", 500, id="evt_late")])
    assert (closed.status, closed.ended.cause, closed.duration_seconds) == ("completed", "hangup", 0)


def test_nothing_is_known_before_the_invite():
    assert replay([ANSWERED, ended()]) is None


@pytest.mark.parametrize(
    ("story", "recording"),
    [(WHOLE, "ready"), (BROKEN_RECORDING, "failed"), (WHOLE[:4], "announced"), (UNANSWERED, "none")],
)
def test_recording(story, recording):
    assert replay(story).recording == recording


def test_measured_from_packets_is_preferred():
    rtcp = Measured(id="evt_0", call_id="call_1", at=at(10.5), source="rtcp", caller=SIDE, agent=SIDE)
    for story in ([*WHOLE, rtcp], [invited(), rtcp, *WHOLE]):
        assert replay(story).measured == MEASURED


@pytest.mark.parametrize(
    ("mos", "word"),
    [
        (4.41, "excellent"),
        (4.03, "excellent"),
        (4.02, "good"),
        (3.6, "good"),
        (3.59, "fair"),
        (3.1, "fair"),
        (1, "poor"),
    ],
)
def test_quality_bands(mos, word):
    assert quality.label(mos) == word


def test_quality_is_that_of_the_worse_side():
    bad = Direction(packets=1, lost=1, loss_percent=50, jitter_ms=90, mos=2.0, codec="PCMU")
    measured = Measured(id="m", call_id="c", at=START, source="packets", caller=SIDE, agent=bad)
    shown = quality.summarise(measured)
    assert (shown["label"], shown["mos"], shown["caller"]["mos"]) == ("poor", 2.0, 4.4)
    assert quality.summarise(Measured(id="m", call_id="c", at=START, source="packets", caller=None, agent=None)) is None


def test_a_refused_call_keeps_the_edges_explanation():
    decided = Explanation(summary="No.", tried=("a",), nearest="b", mend="c")
    call = replay([invited(refusal=Cause.NO_ROUTE, explanation=decided), ended("refused", 480)])
    assert explanation(call) == {"summary": "No.", "tried": ["a"], "nearest": "b", "mend": "c"}


def test_another_ending_says_what_came_of_it():
    call = replay([invited(), ended("rejected", 403, "Forbidden", "agent", detail="The digest was refused.")])
    shown = explanation(call)
    assert "refused the call: 403 Forbidden. The digest was refused." in shown["summary"]
    assert shown["tried"][0] == "number known"
    assert shown["mend"]


@pytest.mark.parametrize("cause", get_args(EndCause))
def test_every_end_that_is_a_fault_says_how_to_mend_it(cause):
    shown = explanation(replay([invited(), ended(cause, 500, "Server Error", "edge")]))
    assert bool(shown["mend"]) == (cause not in {"hangup", "max_duration", "canceled"})
    assert "The call ended." not in shown["summary"]


@pytest.mark.parametrize(
    ("code", "word"),
    [(403, "lets us in"), (404, "exactly"), (488, "config.codecs"), (486, "busy"), (503, "failover"), (499, "code")],
)
def test_a_refusal_by_the_called_side_is_mended_by_its_code(code, word):
    assert word in explanation(replay([invited(), ended("rejected", code, "So", "agent")]))["mend"]


def test_each_try_that_came_to_nothing_is_explained_in_order() -> None:
    tries = [
        Attempted(
            id=f"evt_t{i}",
            call_id="call_1",
            at=at(i / 10),
            trunk_id=f"trunk_{i}",
            server=f"sip{i}.example.com:5060/udp",
            cause="rejected",
            sip_code=503,
            sip_reason="Service Unavailable",
            detail="It is being upgraded.",
        )
        for i in (1, 2)
    ]
    call = replay([invited(), tries[1], tries[0], tries[1], RINGING, ANSWERED, ended()])
    assert call is not None
    assert call.attempts == tuple(tries)
    first, second = explanation(call)["tried"][1:3]
    assert first.startswith("sip1.example.com:5060/udp did not take the call: 503 Service Unavailable;")
    assert "It is being upgraded." in second


def queued():
    return Queued(
        id="evt_q",
        call_id="call_1",
        at=START,
        account_id="acct_1",
        mode="test",
        from_="+15555551234",
        to="+13038921234",
        number_id="phone_1",
        trunk_id="trunk_1",
        agent_id="agent_1",
        explanation=Explanation(summary="It waits."),
    )


def test_a_call_that_the_api_asked_for_is_queued_until_an_edge_has_it():
    waiting = replay([queued()])
    assert waiting is not None
    assert (waiting.status, waiting.started_at, waiting.phone_number) == ("queued", START, "+15555551234")
    edge = invited(at=at(3), direction="outbound", from_="+15555551234", to="+13038921234")
    for events in ([queued(), edge], [edge, queued()]):
        placed = replay(events)
        assert placed is not None
        assert (placed.status, placed.started_at, placed.invited.edge_id) == ("in-progress", START, "edge_1")


def test_a_queued_call_that_is_ended_is_over():
    end = Ended(id="evt_e", call_id="call_1", at=at(60), cause="not_placed", by="edge", sip_code=0, sip_reason="")
    call = replay([queued(), end])
    assert call is not None
    assert (call.status, call.is_over) == ("failed", True)
    assert "No edge placed the call in time." in explanation(call)["summary"]

"""OpenAI's events of a call, folded into what was said."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from voxpria_server.providers.openai_said import Dictation

pytestmark = pytest.mark.unit
AT = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
DONE = "response.output_audio_transcript.done"
HEARD = "conversation.item.input_audio_transcription.completed"


def told(kind: str, **fields: object) -> str:
    return json.dumps({"type": kind, **fields})


def test_a_turn_begins_with_the_first_event_of_its_item() -> None:
    dictation, later = Dictation(), AT + timedelta(seconds=5)
    assert dictation.hear(told("input_audio_buffer.speech_started", item_id="a", audio_start_ms=5), AT) is None
    assert dictation.hear(told("response.output_audio_transcript.delta", item_id="b", delta="Goo"), later) is None
    caller = dictation.hear(told(HEARD, item_id="a", transcript=" Hello "), later)
    agent = dictation.hear(told(DONE, item_id="b", transcript="Good day"), later + timedelta(seconds=1))
    assert caller is not None
    assert agent is not None
    assert (caller.speaker, caller.text, caller.at) == ("caller", "Hello", AT)
    assert (agent.speaker, agent.text, agent.at) == ("agent", "Good day", later)


@pytest.mark.parametrize(
    "event",
    [
        told(DONE, item_id="a", transcript=" \0 "),
        told(DONE, transcript="of nothing"),
        told(DONE, item_id="a" * 129, transcript="too long a name"),
        told(DONE, item_id="a", transcript=None),
        told("conversation.item.input_audio_transcription.failed", item_id="a", error={"code": None, "type": "x"}),
        told("error", error={"code": 5}),
        "[]",
        "{",
        b"\xff",
        "[" * 100_000,
    ],
)
def test_what_says_nothing_is_passed_over(event: str | bytes) -> None:
    assert Dictation().hear(event, AT) is None


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists, max_leaves=5))
def test_no_event_breaks_it(value: object) -> None:
    dictation = Dictation()
    for name in ("item_id", "transcript", "error", "type"):
        dictation.hear(json.dumps({"type": DONE, "item_id": "a", "transcript": "b", name: value}), AT)


def test_turns_and_beginnings_are_bounded() -> None:
    dictation = Dictation()
    for number in range(300):
        dictation.hear(told("input_audio_buffer.speech_started", item_id=f"begun {number}"), AT)
    assert len(dictation._begun) == 100
    said = [dictation.hear(told(DONE, item_id=str(number), transcript="x"), AT) for number in range(2100)]
    assert sum(one is not None for one in said) == 2000

"""What a stream of RTP packets tells of itself, where its sender pauses."""

import pytest
from voxpria_edge.media.rtp import Packet, Reception

pytestmark = pytest.mark.unit
RATE, STEP = 8000, 160


@pytest.mark.parametrize("clock_goes_on", [True, False])
def test_a_pause_is_neither_jitter_nor_loss(*, clock_goes_on: bool) -> None:
    """A minute on hold: some senders' timestamps go on meanwhile (RFC 3550 section 5.1), some stand still."""
    reception = Reception(RATE)
    pause = 60.0
    for i in range(600):
        is_after = i >= 300
        at = i * 0.02 + (pause if is_after else 0)
        timestamp = i * STEP + (int(pause * RATE) if is_after and clock_goes_on else 0)
        reception.take(Packet(0, i, timestamp, 1, b""), at)
    assert reception.lost == 0
    assert reception.jitter_seconds == pytest.approx(0, abs=1e-6)


def test_what_is_late_by_less_is_jitter() -> None:
    reception = Reception(RATE)
    for i in range(600):
        reception.take(Packet(0, i, i * STEP, 1, b""), i * 0.02 + (0.3 if i % 100 == 50 else 0))
    assert reception.jitter_seconds > 0.001

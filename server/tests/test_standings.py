"""What attempts that ended together say of their webhook."""

from datetime import UTC, datetime, timedelta

import pytest
from voxpria_server.webhooks.courier import FAILING, standings
from voxpria_server.webhooks.queries import Attempt, Standing
from voxpria_server.webhooks.sender import Outcome

pytestmark = pytest.mark.unit
NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)


def attempt(seconds: int, status: int, *, failing_since: datetime | None = None, is_test: bool = False) -> Attempt:
    row = {"id": "dlv_1", "webhook_id": "webhook_1", "failing_since": failing_since, "is_test": is_test}
    return Attempt(row, 1, NOON + timedelta(seconds=seconds), Outcome(5, status), None)


def test_success_says_nothing_of_a_webhook_that_was_fine():
    assert standings([attempt(0, 200), attempt(1, 204)]) == []


def test_success_ends_a_time_of_failing():
    assert standings([attempt(0, 200, failing_since=NOON)]) == [Standing("webhook_1", is_reset=True)]
    assert standings([attempt(0, 500), attempt(1, 200)]) == [Standing("webhook_1", is_reset=True)]


def test_the_first_failure_counts():
    (found,) = standings([attempt(0, 500), attempt(1, 500)])
    assert (found.is_reset, found.since, found.failing_before) == (False, NOON, NOON - FAILING)


def test_a_failure_after_a_success_begins_anew():
    (found,) = standings([attempt(0, 500), attempt(1, 200), attempt(2, 500)])
    assert (found.is_reset, found.since, found.failing_before) == (True, NOON + timedelta(seconds=2), None)


def test_a_failed_test_event_says_nothing():
    assert standings([attempt(0, 500, is_test=True)]) == []


def test_the_reason_says_since_when_and_what_came_last():
    (found,) = standings([attempt(0, 503, failing_since=NOON - timedelta(days=6))])
    assert found.reason is not None
    assert "2026-02-26T12:00:00Z" in found.reason
    assert "It answered 503." in found.reason

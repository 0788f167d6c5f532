"""How the lanes of a process are shared."""

from contextlib import ExitStack

import pytest
from voxpria_server.webhooks import lanes
from voxpria_server.webhooks.lanes import Lanes, Line

pytestmark = pytest.mark.unit


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


def test_a_webhook_has_its_share_and_gives_it_back(clock):
    shared = Lanes(clock)
    with ExitStack() as stack:
        waits = [stack.enter_context(shared.enter("a", "acct")) for _ in range(9)]
        assert waits[:8] == [None] * 8
        assert waits[8] is not None
    with shared.enter("a", "acct") as wait:
        assert wait is None


def test_a_webhook_that_hangs_gets_fewer(clock):
    shared = Lanes(clock)
    with ExitStack() as stack:
        for _ in range(2):
            assert stack.enter_context(shared.enter("a", "acct")) is None
        clock.now += lanes.SLOW_SECONDS
        assert stack.enter_context(shared.enter("a", "acct")) is not None
        assert stack.enter_context(shared.enter("b", "acct")) is None
    with shared.enter("a", "acct") as first, shared.enter("a", "acct") as second, shared.enter("a", "acct") as third:
        assert (first, second) == (None, None), "it was slow, and may try"
        assert third is not None


def test_one_that_answers_quickly_again_has_all_its_lanes_again(clock):
    shared = Lanes(clock)
    with shared.enter("a", "acct"):
        clock.now += 15
    with shared.enter("a", "acct"):
        clock.now += 0.1
    with ExitStack() as stack:
        assert [stack.enter_context(shared.enter("a", "acct")) for _ in range(8)] == [None] * 8


def test_those_who_wait_are_told_ever_later_times(clock):
    shared = Lanes(clock)
    with ExitStack() as stack:
        for _ in range(8):
            stack.enter_context(shared.enter("a", "acct"))
        waits = [stack.enter_context(shared.enter("a", "acct")) for _ in range(20)]
    assert waits == sorted(waits)
    assert waits[0] > 0
    assert waits[-1] == pytest.approx(20 * 0.5 / 8)


def test_an_account_with_many_webhooks_leaves_room_for_others(clock):
    shared = Lanes(clock)
    with ExitStack() as stack:
        mine = [stack.enter_context(shared.enter(f"w{n}", "greedy")) for n in range(50)]
        assert mine.count(None) == lanes.MOST_OF_AN_ACCOUNT
        assert stack.enter_context(shared.enter("w", "other")) is None


def test_all_together_are_bounded(clock):
    shared = Lanes(clock)
    with ExitStack() as stack:
        all_ = [stack.enter_context(shared.enter(f"w{n}", f"acct{n}")) for n in range(300)]
        assert all_.count(None) == lanes.MOST_AT_ONCE
    assert shared._of_account.total() == 0


def test_only_where_all_lanes_of_a_quick_webhook_are_taken_one_is_free_again_soon(clock):
    shared = Lanes(clock)
    with ExitStack() as stack:
        for _ in range(8):
            assert not shared.are_quick("a")
            stack.enter_context(shared.enter("a", "acct"))
        assert shared.are_quick("a")
        clock.now += lanes.SLOW_SECONDS
        assert not shared.are_quick("a"), "it has not answered for long"


def test_a_line_is_left_in_the_order_in_which_it_was_joined_or_after_a_second(clock):
    line = Line[int](clock)
    assert [line.join("a", n) for n in range(lanes.MOST_IN_LINE + 1)] == [True] * lanes.MOST_IN_LINE + [False]
    assert line.first_of("a") == 0
    line.step_out("a")
    clock.now += lanes.LINE_SECONDS / 2
    assert line.join("b", 1000)
    assert line.leave() == []
    clock.now += lanes.LINE_SECONDS / 2
    assert line.leave() == list(range(1, lanes.MOST_IN_LINE))
    assert (line.is_any("a"), line.is_any("b")) == (False, True)
    line.step_out("b")
    assert (line.is_any("b"), line.first_of("b")) == (False, None)

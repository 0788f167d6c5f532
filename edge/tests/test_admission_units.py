"""Nonces, counts and circuits, without a network."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from voxpria_edge.admission.gatekeeper import NONCE_SECONDS, REALM, Gatekeeper
from voxpria_edge.admission.traffic import Traffic
from voxpria_edge.trunks.breaker import Breakers
from voxpria_routing.digest import is_proven, parse
from voxpria_routing.load import full

pytestmark = pytest.mark.unit


class Clock:
    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def answer(challenge: str, password: str = "secret", count: int = 1) -> str:
    """Answer a challenge by the formula of RFC 7616 section 3.4.1, written out."""
    nonce = challenge.partition('nonce="')[2].partition('"')[0]
    algorithm = challenge.partition("algorithm=")[2].partition(",")[0]
    name = {"MD5": "md5", "SHA-256": "sha256"}[algorithm]

    def h(text: str) -> str:
        return hashlib.new(name, text.encode()).hexdigest()

    ha1, ha2 = h(f"user:{REALM}:{password}"), h("INVITE:sip:+1555@edge")
    response = h(f"{ha1}:{nonce}:{count:08x}:c0:auth:{ha2}")
    return (
        f'Digest username="user", realm="{REALM}", nonce="{nonce}", uri="sip:+1555@edge", response="{response}",'
        f' algorithm={algorithm}, qop=auth, nc={count:08x}, cnonce="c0"'
    )


@pytest.mark.parametrize("place", [0, 1])
def test_an_answer_is_proven_and_taken_once_while_its_nonce_is_fresh(place: int) -> None:
    clock = Clock()
    keeper = Gatekeeper(clock)
    challenge = keeper.challenges(is_stale=False, room_bytes=1000)[place]
    digest = keeper.read(answer(challenge))
    assert digest is not None
    assert digest.is_fresh
    assert not digest.is_replayed
    assert is_proven(digest, "INVITE", "secret")
    assert not is_proven(digest, "INVITE", "wrong")
    assert not is_proven(digest, "REGISTER", "secret")
    keeper.take(digest)
    again = keeper.read(answer(challenge))
    assert again is not None
    assert again.is_replayed
    later = keeper.read(answer(challenge, count=2))
    assert later is not None
    assert not later.is_replayed
    clock.now += NONCE_SECONDS + 1
    late = keeper.read(answer(challenge, count=3))
    assert late is not None
    assert not late.is_fresh


def test_a_nonce_of_somebody_elses_making_is_not_fresh() -> None:
    clock = Clock()
    challenge = Gatekeeper(clock).challenges(is_stale=False, room_bytes=1000)[0]
    digest = Gatekeeper(clock).read(answer(challenge))
    assert digest is not None
    assert not digest.is_fresh


def test_challenges_fit_into_the_room_there_is() -> None:
    keeper = Gatekeeper()
    both = keeper.challenges(is_stale=True, room_bytes=1000)
    assert ["algorithm=MD5" in both[0], "algorithm=SHA-256" in both[1]] == [True, True]
    assert len(keeper.challenges(is_stale=True, room_bytes=len(both[0]) + 5)) == 1
    assert keeper.challenges(is_stale=True, room_bytes=10) == []


@given(st.text(max_size=300))
def test_any_header_is_read_or_refused(text: str) -> None:
    for header in (text, f"Digest {text}", f"Digest username={text}, realm={REALM}"):
        digest = Gatekeeper().read(header)
        assert digest is None or not digest.is_fresh


def test_what_lacks_qop_or_repeats_a_parameter_is_no_answer() -> None:
    good = answer(Gatekeeper().challenges(is_stale=False, room_bytes=1000)[0])
    assert parse(good)
    assert parse(good.replace("qop=auth, ", "")) is None
    assert parse(good + ', username="other"') is None
    assert parse(good.replace("algorithm=MD5", "algorithm=MD5-sess")) is None
    assert parse("Basic dXNlcjpzZWNyZXQ=") is None


@given(st.floats(0.1, 50), st.lists(st.floats(0, 0.5), max_size=200))
def test_no_window_holds_more_starts_than_its_rate(rate: float, gaps: list[float]) -> None:
    clock = Clock(0.0)
    traffic = Traffic(clock)
    taken = []
    for gap in gaps:
        clock.now += gap
        if full(traffic.load({}), "trunk", None, rate) is None:
            traffic.start(["trunk"])
            taken.append(clock.now)
    count = max(1, int(rate))
    windows = zip(taken, taken[count:], strict=False)
    assert all(later - earlier >= count / rate - 1e-9 for earlier, later in windows)


@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=100), st.integers(1, 4))
def test_open_calls_are_counted_once_each_and_never_overshoot(steps: list[tuple[int, bool]], most: int) -> None:
    traffic = Traffic()
    is_open: set[int] = set()
    for call, begins in steps:
        if not begins:
            traffic.hold(str(call), ())
            is_open.discard(call)
        elif call in is_open or full(traffic.load({}), "trunk", most, None) is None:
            traffic.hold(str(call), ["trunk", "account"])
            is_open.add(call)
        assert traffic.load({}).open_calls.get("trunk", 0) == len(is_open) <= most


def test_a_circuit_opens_after_failures_in_a_row_and_then_one_call_tries() -> None:
    clock = Clock()
    breakers = Breakers(clock)
    for call in range(4):
        breakers.failed("s", f"call_{call}", "503")
    breakers.worked("s")
    for call in range(4):
        breakers.failed("s", f"call_{call}", "503 Service Unavailable")
    assert breakers.down() == {}
    breakers.failed("s", "call_5", "no answer")
    assert breakers.down() == {"s": "its server failed 5 calls in a row, last with no answer"}
    clock.now += 11
    assert breakers.down() == {}
    breakers.dialled("s", "call_6")
    assert "s" in breakers.down()
    breakers.failed("s", "call_6", "no answer")
    assert "s" in breakers.down()
    breakers.found_up("s")
    assert breakers.down() == {}
    breakers.dialled("s", "call_7")
    breakers.given_up("s", "call_7")
    assert breakers.down() == {}
    breakers.dialled("s", "call_8")
    assert "s" in breakers.down()
    breakers.worked("s")
    assert breakers.down() == {}
    assert breakers.worked_within("s", 1)


def test_five_calls_at_once_may_try_a_server_that_is_down_and_no_more_than_five_a_second() -> None:
    clock = Clock()
    breakers = Breakers(clock)
    breakers.found_down("s", "it is asleep", 30)
    for call in range(5):
        assert not breakers.tried_enough()
        breakers.dialled("s", f"call_{call}")
    assert breakers.tried_enough() == {"s"}
    for call in range(5):
        breakers.failed("s", f"call_{call}", "503")
    assert breakers.tried_enough() == {"s"}
    clock.now += 1
    assert not breakers.tried_enough()
    assert "s" in breakers.down()


def test_calls_that_went_before_a_circuit_opened_do_not_keep_it_open() -> None:
    clock = Clock()
    breakers = Breakers(clock)
    for call in range(50):
        breakers.failed("s", f"call_{call}", "no answer")
    assert not breakers.tried_enough()
    clock.now += 11
    assert breakers.down() == {}


def test_a_call_that_rings_says_that_a_server_is_there() -> None:
    clock = Clock()
    breakers = Breakers(clock)
    breakers.found_down("s", "it sent no answer", 30)
    breakers.dialled("s", "call_1")
    breakers.rang("s", "call_1")
    assert breakers.down() == {}
    for call in range(5):
        breakers.failed("s", f"call_{call}", "503")
    clock.now += 11
    breakers.dialled("s", "call_6")
    breakers.rang("s", "call_6")
    assert breakers.down() == {}  # but what becomes of the call still counts
    breakers.failed("s", "call_6", "503")
    assert "s" in breakers.down()


def test_a_trial_of_which_nothing_is_heard_any_more_does_not_keep_its_place() -> None:
    clock = Clock()
    breakers = Breakers(clock)
    breakers.found_down("s", "it is asleep", 1000)
    for call in range(5):
        breakers.dialled("s", f"call_{call}")
    clock.now += 201
    assert not breakers.tried_enough()


def test_a_server_found_down_is_passed_over_until_it_is_found_up() -> None:
    clock = Clock()
    breakers = Breakers(clock)
    breakers.found_down("s", "it is asleep", 30)
    assert breakers.down() == {"s": "it is asleep"}
    clock.now += 31
    assert breakers.down() == {}
    breakers.dialled("s", "call_1")
    assert breakers.down() == {"s": "it is asleep"}
    breakers.found_up("s")
    assert breakers.down() == {}
    breakers.dialled("s", "call_1")
    assert breakers.down() == {}

"""Circuit breakers: a server that fails one call after the other is passed over for a while, then gets one to try.

Closed: calls go. Open, after some failures in a row: calls go elsewhere, for a pause that grows. Half-open, when the
pause is over or the server has answered an OPTIONS: one call goes, and what becomes of it closes or opens the circuit.

A server that was found to be down (`health`) is passed over too, until it is found to be up again.

To be passed over is not to be refused: where a call has nowhere else to go, such a server is its last resort, as what
is known of it may be wrong, or out of date. Only a few calls try at once, so that neither a server that is overloaded
nor an edge whose calls all wait for nobody is buried.
"""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from voxpria_edge.kit.backoff import Backoff

_FAILURES_TO_OPEN = 5
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 5.0, 60.0
_TRIAL_SECONDS = 200.0
"""A trial of which nothing is heard for longer than any call may ring is over."""
_MOST_TRIALS = 5
"""Calls that may try a server at once while its circuit is open."""
_AFTER_FAILURE_SECONDS = 1.0
"""For how long a trial that failed keeps its place: a server that refuses at once gets no more than these a second."""


@dataclass
class _Circuit:
    failures: int = 0
    """Calls in a row that failed; none, if only the looks at the server did."""
    last_failure: str = ""
    opens_again_at: float | None = None
    """When a trial may go; None while closed."""
    trials: dict[str, float] = field(default_factory=dict)
    """The calls that are trying it, by id, and until when they count."""
    failed_at: deque[float] = field(default_factory=lambda: deque(maxlen=_MOST_TRIALS))
    """When the last trials failed."""
    pauses: Backoff = field(default_factory=lambda: Backoff(_FIRST_PAUSE_SECONDS * 2, _LONGEST_PAUSE_SECONDS))


class Breakers:
    """One circuit a server, by `voxpria_routing.load.server_key`; those in order are not kept."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._circuits: dict[str, _Circuit] = {}
        self._worked_at: dict[str, float] = {}

    def down(self) -> dict[str, str]:
        """Return the servers that are passed over now, by key, and why."""
        now = self._clock()
        return {id_: _sentence(c) for id_, c in self._circuits.items() if _is_passed_over(c, now)}

    def tried_enough(self) -> frozenset[str]:
        """Return those of them that no call may try now, not even as a last resort."""
        now = self._clock()
        return frozenset(id_ for id_, c in self._circuits.items() if _is_tried_enough(c, now))

    def dialled(self, server: str, call_id: str) -> None:
        """Note that a call goes to a server: as a trial, unless the circuit is closed."""
        circuit = self._circuits.get(server)
        if circuit is not None and circuit.opens_again_at is not None:
            now = self._clock()
            circuit.trials = {id_: until for id_, until in circuit.trials.items() if now < until}
            circuit.trials[call_id] = now + _TRIAL_SECONDS

    def rang(self, server: str, call_id: str) -> None:
        """Note that a call rings there: somebody is there after all, and the call's place is free for another trial."""
        circuit = self._circuits.get(server)
        if circuit is None:
            return
        circuit.trials.pop(call_id, None)
        if not circuit.failures:
            del self._circuits[server]

    def worked(self, server: str) -> None:
        """Note that the server dealt with a call, whatever it made of it."""
        self._circuits.pop(server, None)
        self._worked_at[server] = self._clock()

    def worked_within(self, server: str, seconds: float) -> bool:
        """Tell whether a call went well not longer ago than this, and none has failed since."""
        worked_at = self._worked_at.get(server)
        return worked_at is not None and server not in self._circuits and self._clock() - worked_at < seconds

    def failed(self, server: str, call_id: str, why: str) -> None:
        """Note that the server failed a call."""
        now = self._clock()
        circuit = self._circuits.setdefault(server, _Circuit())
        circuit.failures += 1
        circuit.last_failure = why
        was_trial = circuit.trials.pop(call_id, None) is not None
        if was_trial:
            circuit.failed_at.append(now)
        if circuit.opens_again_at is None:
            opens = circuit.failures >= _FAILURES_TO_OPEN
        else:  # calls that went before it opened say nothing new
            opens = was_trial or now >= circuit.opens_again_at
        if opens:
            circuit.opens_again_at = max(circuit.opens_again_at or 0.0, now + circuit.pauses.next_seconds())

    def given_up(self, server: str, call_id: str) -> None:
        """Note that the caller gave up: nothing is known of the server, and the place of a trial is free again."""
        circuit = self._circuits.get(server)
        if circuit is not None:
            circuit.trials.pop(call_id, None)

    def found_down(self, server: str, why: str, seconds: float) -> None:
        """Note that the server does not answer, as `why` says: it is passed over for this long, or until found up."""
        circuit = self._circuits.setdefault(server, _Circuit())
        if not circuit.failures:
            circuit.last_failure = why
        circuit.opens_again_at = max(circuit.opens_again_at or 0.0, self._clock() + seconds)

    def found_up(self, server: str) -> None:
        """Note that the server answers: its calls go on, or if they had failed, the next one may be the trial."""
        circuit = self._circuits.get(server)
        if circuit is None or circuit.opens_again_at is None:
            return
        if circuit.failures:
            circuit.opens_again_at = min(circuit.opens_again_at, self._clock())
        else:
            del self._circuits[server]


def _is_passed_over(circuit: _Circuit, now: float) -> bool:
    return circuit.opens_again_at is not None and (now < circuit.opens_again_at or _trials(circuit, now) > 0)


def _is_tried_enough(circuit: _Circuit, now: float) -> bool:
    just_failed = sum(now - at < _AFTER_FAILURE_SECONDS for at in circuit.failed_at)
    return _trials(circuit, now) + just_failed >= _MOST_TRIALS


def _trials(circuit: _Circuit, now: float) -> int:
    return sum(now < until for until in circuit.trials.values())


def _sentence(circuit: _Circuit) -> str:
    if not circuit.failures:
        return circuit.last_failure
    calls = "its last call" if circuit.failures == 1 else f"{circuit.failures} calls in a row, last"
    return f"its server failed {calls} with {circuit.last_failure}"

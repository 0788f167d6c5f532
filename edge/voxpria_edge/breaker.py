"""Circuit breakers: a server that fails one call after the other gets none for a while, then one to try.

Closed: calls go. Open, after some failures in a row: none go, for a pause that grows. Half-open, when the pause is
over or the server has answered an OPTIONS: one call goes, and what becomes of it closes or opens the circuit.

A server that was found to be down (`health`) gets none either, until it is found to be up again.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from voxpria_edge.backoff import Backoff

_FAILURES_TO_OPEN = 5
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 5.0, 60.0
_TRIAL_SECONDS = 200.0
"""A trial of which nothing is heard for longer than any call may ring is over."""


@dataclass
class _Circuit:
    failures: int = 0
    """Calls in a row that failed; none, if only the looks at the server did."""
    last_failure: str = ""
    opens_again_at: float | None = None
    """When a trial may go; None while closed."""
    trial_ends_at: float | None = None
    pauses: Backoff = field(default_factory=lambda: Backoff(_FIRST_PAUSE_SECONDS * 2, _LONGEST_PAUSE_SECONDS))


class Breakers:
    """One circuit a server, by `voxpria_routing.load.server_key`; those in order are not kept."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._circuits: dict[str, _Circuit] = {}
        self._worked_at: dict[str, float] = {}

    def down(self) -> dict[str, str]:
        """Return the servers that get no call now, by key, and why."""
        now = self._clock()
        return {id_: _sentence(c) for id_, c in self._circuits.items() if _takes_none(c, now)}

    def dialled(self, server: str) -> None:
        """Note that a call goes to a server: its trial, if the circuit is half-open."""
        circuit = self._circuits.get(server)
        if circuit is not None and circuit.opens_again_at is not None:
            circuit.trial_ends_at = self._clock() + _TRIAL_SECONDS

    def worked(self, server: str) -> None:
        """Note that the server dealt with a call, whatever it made of it."""
        self._circuits.pop(server, None)
        self._worked_at[server] = self._clock()

    def worked_within(self, server: str, seconds: float) -> bool:
        """Tell whether a call went well not longer ago than this, and none has failed since."""
        worked_at = self._worked_at.get(server)
        return worked_at is not None and server not in self._circuits and self._clock() - worked_at < seconds

    def failed(self, server: str, why: str) -> None:
        """Note that the server failed a call."""
        circuit = self._circuits.setdefault(server, _Circuit())
        circuit.failures += 1
        circuit.last_failure = why
        was_trial = circuit.trial_ends_at is not None
        if was_trial or (circuit.opens_again_at is None and circuit.failures >= _FAILURES_TO_OPEN):
            circuit.opens_again_at = self._clock() + circuit.pauses.next_seconds()
            circuit.trial_ends_at = None

    def given_up(self, server: str) -> None:
        """Note that the caller gave up: nothing is known of the server, and a trial is free again."""
        circuit = self._circuits.get(server)
        if circuit is not None:
            circuit.trial_ends_at = None

    def found_down(self, server: str, why: str, seconds: float) -> None:
        """Note that the server does not answer, as `why` says: no calls for this long, unless it is found up before."""
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


def _takes_none(circuit: _Circuit, now: float) -> bool:
    if circuit.opens_again_at is None:
        return False
    if circuit.trial_ends_at is not None and now < circuit.trial_ends_at:
        return True
    return now < circuit.opens_again_at


def _sentence(circuit: _Circuit) -> str:
    if not circuit.failures:
        return circuit.last_failure
    return f"its server failed {circuit.failures} calls in a row, last with {circuit.last_failure}"

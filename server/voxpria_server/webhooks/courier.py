"""Brings what is due: claims deliveries, makes their attempts, records what came of them. One in every process.

A delivery is a row and no job. Whoever commits one says so by NOTIFY, and a courier claims all that is due in one
statement, which gives each its turn in the account's rate too. A claim is a lease: what a killed process had claimed
is another's when it runs out. What was attempted is recorded together, by as many as have ended meanwhile.

What can't go now waits in its row: for its turn, a lane or the next attempt. Only for a lane of a webhook that answers
quickly it waits here, as what is claimed already, for a second at most.
"""

import asyncio
import random
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from datetime import datetime, timedelta
from functools import cache

import asyncpg
import msgspec
from opentelemetry.trace import SpanKind
from prometheus_client import Counter

from voxpria_server.kit import tracing
from voxpria_server.kit.clock import iso, utc_now
from voxpria_server.kit.db import Database, DatabaseUnavailableError
from voxpria_server.kit.logs import get_logger, name_in_log
from voxpria_server.kit.metrics import REGISTRY
from voxpria_server.kit.sealing import Sealer
from voxpria_server.webhooks import outbox, queries, signing
from voxpria_server.webhooks.lanes import Line
from voxpria_server.webhooks.queries import Attempt, Standing
from voxpria_server.webhooks.sender import Outcome, Sender

_log = get_logger(__name__)
_attempts = Counter(
    "voxpria_delivery_attempts", "Attempts to deliver a webhook, by what came of them.", ("outcome",), registry=REGISTRY
)

DELAYS_SECONDS = (0, 5, 5 * 60, 30 * 60, 2 * 3600, 5 * 3600, 10 * 3600, 10 * 3600)
"""How long after the one before it each attempt is made."""

FAILING = timedelta(days=5)
"""A webhook that has failed for so long, without one success, is disabled."""

_AT_ONCE = 500
_LEASE = timedelta(seconds=25)
"""Longer than an attempt can take, its wait in line and its record included."""
_TURN = timedelta(minutes=1)
"""How long a turn in the account's rate is good."""
_LOOK_SECONDS = 1.0
"""How often is looked for what became due by the clock; what is due at once rings."""
_SHUTDOWN_SECONDS = 1.5
_PAUSE_SECONDS = 0.5
_TROUBLE_SECONDS = 60.0


class Courier:
    """The courier of a process: `start` it within the event loop, `stop` it before its parts are closed."""

    def __init__(self, database: Database, sealer: Sealer, sender: Sender, attempts_per_minute: int) -> None:
        """`attempts_per_minute`: how many an account may have made in each mode."""
        self._database, self._sealer, self._sender = database, sealer, sender
        self._attempts_per_minute = attempts_per_minute
        self._record = _Record(database)
        self._line = Line[asyncpg.Record]()
        self._running: dict[asyncio.Task[None], str] = {}
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Start, in tasks of its own."""
        self._tasks = [
            asyncio.create_task(self._keep_bringing(), name="webhook courier"),
            asyncio.create_task(self._record.keep(), name="webhook record"),
        ]

    async def stop(self) -> None:
        """Let attempts end for 1.5 s; what is broken off then is another courier's at once."""
        bringing, *_ = self._tasks
        await _end([bringing])
        in_line = [delivery["id"] for delivery in self._line.leave(0)]
        if self._running:
            await asyncio.wait(self._running, timeout=_SHUTDOWN_SECONDS)
        broken_off = [*in_line, *self._running.values()]
        await _end([*self._running, *self._tasks])
        with suppress(DatabaseUnavailableError, asyncpg.PostgresError, TimeoutError):
            async with asyncio.timeout(_SHUTDOWN_SECONDS):
                await queries.wait_until(self._database, dict.fromkeys(broken_off, utc_now()))

    async def _keep_bringing(self) -> None:
        with self._database.listener.ear(outbox.CHANNEL) as ear:
            self._record.on_retry = ear.ring
            while True:
                try:
                    is_more = await self._bring()
                except (DatabaseUnavailableError, asyncpg.PostgresError) as error:
                    _log.warning("deliveries not claimed", error=type(error).__name__)
                    await asyncio.sleep(_PAUSE_SECONDS * random.uniform(0.75, 1.25))  # noqa: S311  (jitter)
                    continue
                if not is_more:
                    await ear.wait(_LOOK_SECONDS)

    async def _bring(self) -> bool:
        """Begin the attempts of what is due; return True if there may be more."""
        due = await queries.claim_due(self._database, _AT_ONCE, _LEASE, self._attempts_per_minute)
        waiting = {delivery["id"]: utc_now() for delivery in self._line.leave()}
        for delivery in due:
            if delivery["is_claimed"] and (wait_seconds := self._admit(delivery)) is not None:
                waiting[delivery["id"]] = utc_now() + timedelta(seconds=wait_seconds)
        await queries.wait_until(self._database, waiting)
        return len(due) == _AT_ONCE

    def _admit(self, delivery: asyncpg.Record) -> float | None:
        """Begin an attempt, or have it stand in line; else return for how long it has to wait in its row."""
        webhook_id = delivery["webhook_id"]
        if self._line.is_any(webhook_id) and self._line.join(webhook_id, delivery):
            return None
        wait_seconds = self._begin(delivery)
        if wait_seconds is None or (self._sender.lanes.are_quick(webhook_id) and self._line.join(webhook_id, delivery)):
            return None
        return wait_seconds

    def _begin(self, delivery: asyncpg.Record) -> float | None:
        """Begin an attempt if there is a lane; else return for how long it has to wait."""
        lane = ExitStack()
        account = f"{delivery['account_id']} {delivery['mode']}"
        wait_seconds = lane.enter_context(self._sender.lanes.enter(delivery["webhook_id"], account))
        if wait_seconds is not None:
            lane.close()
            return wait_seconds
        task = asyncio.create_task(self._attempt(delivery, lane), name="webhook attempt")
        self._running[task] = delivery["id"]
        task.add_done_callback(self._running.pop)
        return None

    def _go_on(self, webhook_id: str) -> None:
        """Begin the attempt that stands first in a webhook's line, while its turn is good; else it leaves by itself."""
        delivery = self._line.first_of(webhook_id)
        if delivery is not None and utc_now() < delivery["turn_at"] + _TURN and self._begin(delivery) is None:
            self._line.step_out(webhook_id)

    async def _attempt(self, delivery: asyncpg.Record, lane: ExitStack) -> None:
        try:
            with lane:
                attempt = await self._make(delivery)
        except Exception:  # ours, not the customer's: as a secret that can't be opened
            _log.exception("delivery could not be attempted", delivery_id=delivery["id"])
            await queries.wait_until(self._database, {delivery["id"]: utc_now() + timedelta(seconds=_TROUBLE_SECONDS)})
        else:
            self._go_on(delivery["webhook_id"])
            await self._record.add(attempt)

    async def _make(self, delivery: asyncpg.Record) -> Attempt:
        parent = tracing.within(delivery["traceparent"]) if delivery["traceparent"] else None
        if call_id := _call_of(delivery["body"]):
            name_in_log(call_id=call_id)
        with tracing.span("webhook delivery", _attributes(delivery), kind=SpanKind.CLIENT, within=parent) as span:
            attempt = await self._send(delivery)
            if attempt.outcome.status_code is not None:
                span.set_attribute("http.response.status_code", attempt.outcome.status_code)
            if not attempt.outcome.is_success:
                tracing.failed(span, str(attempt.outcome.status_code or "no answer"))
        return attempt

    async def _send(self, delivery: asyncpg.Record) -> Attempt:
        started_at, number = utc_now(), delivery["attempts"] + 1
        secret, *former = self._secrets(delivery, started_at)
        body: bytes = delivery["body"]
        headers = signing.headers(secret, body, message_id=delivery["event_id"], at=started_at, former=former)
        outcome = await self._sender.post(delivery["url"], body, {**headers, **tracing.headers()})
        _counter_of(f"{outcome.status_code // 100}xx" if outcome.status_code else "no answer").inc()
        _log.info(
            "delivery attempted",
            delivery_id=delivery["id"],
            number=number,
            status_code=outcome.status_code,
            error=outcome.error,
            duration_ms=outcome.duration_ms,
        )
        return Attempt(delivery, number, started_at, outcome, _next_at(number, outcome))

    def _secrets(self, delivery: asyncpg.Record, now: datetime) -> list[str]:
        """Return the webhook's secret, and those before it that are still valid, newest first."""
        formers = zip(delivery["former_sealed_secrets"], delivery["former_secrets_expire_at"], strict=True)
        sealed = [delivery["sealed_secret"], *(former for former, expires_at in formers if now < expires_at)]
        return [self._sealer.open(each, delivery["webhook_id"]).decode() for each in sealed]


@cache
def _counter_of(outcome: str) -> Counter:
    """Return what counts such attempts; to find it among the labels takes longer than to count."""
    return _attempts.labels(outcome)


class _Data(msgspec.Struct):
    call_id: str | None = None


class _Body(msgspec.Struct):
    data: _Data


def _call_of(body: bytes) -> str | None:
    """Return the id of the call that an event tells of, if it is one of a call."""
    return msgspec.json.decode(body, type=_Body).data.call_id


def _attributes(delivery: asyncpg.Record) -> tracing.Attributes:
    return {
        "voxpria.delivery_id": delivery["id"],
        "voxpria.webhook_id": delivery["webhook_id"],
        "voxpria.event_id": delivery["event_id"],
        "voxpria.account_id": delivery["account_id"],
        "voxpria.mode": delivery["mode"],
        "voxpria.delivery.attempt": delivery["attempts"] + 1,
    }


class _Record:
    """Writes down attempts, all that have ended since the last time in one statement; goes on until that succeeds."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._told: list[tuple[Attempt, asyncio.Future[None]]] = []
        self._is_told = asyncio.Event()
        self.on_retry = _nobody
        """Called when the next attempt of something that failed is due."""

    async def add(self, attempt: Attempt) -> None:
        """Return when the attempt is written down."""
        written = asyncio.get_running_loop().create_future()
        self._told.append((attempt, written))
        self._is_told.set()
        await written

    async def keep(self) -> None:
        """Write, until cancelled."""
        while True:
            await self._is_told.wait()
            self._is_told.clear()
            told, self._told = self._told, []
            await self._write([attempt for attempt, _ in told])
            for attempt, written in told:
                if not written.done():
                    written.set_result(None)
                self._ring_for(attempt)

    async def _write(self, attempts: Sequence[Attempt]) -> None:
        while True:
            try:
                disabled = await queries.record(self._database, attempts, standings(attempts))
            except (DatabaseUnavailableError, asyncpg.PostgresError) as error:
                _log.warning("attempts not recorded yet", error=type(error).__name__, count=len(attempts))
                await asyncio.sleep(_PAUSE_SECONDS * random.uniform(0.75, 1.25))  # noqa: S311  (jitter)
                continue
            for webhook_id in disabled:
                _log.warning("webhook disabled", webhook_id=webhook_id)
            return

    def _ring_for(self, attempt: Attempt) -> None:
        if (
            attempt.next_at is not None
            and (seconds := (attempt.next_at - utc_now()).total_seconds()) < _TROUBLE_SECONDS
        ):
            asyncio.get_running_loop().call_later(max(0, seconds), self.on_retry)


def standings(attempts: Sequence[Attempt]) -> list[Standing]:
    """Return what attempts, in the order in which they ended, say of the webhooks they went to. Pure."""
    found: dict[str, Standing] = {}
    for attempt in attempts:
        webhook_id, failing_since = attempt.delivery["webhook_id"], attempt.delivery["failing_since"]
        known = found.get(webhook_id)
        if attempt.outcome.is_success:
            if known is not None or failing_since is not None:
                found[webhook_id] = Standing(webhook_id, is_reset=True)
        elif attempt.delivery["is_test"]:
            continue
        elif known is None:
            found[webhook_id] = Standing(
                webhook_id, False, attempt.started_at, attempt.started_at - FAILING, _why(attempt, failing_since)
            )
        elif known.since is None:
            found[webhook_id] = Standing(webhook_id, True, attempt.started_at)
    return list(found.values())


def _why(attempt: Attempt, failing_since: datetime | None) -> str:
    """Say why a webhook is disabled, if it is with this attempt."""
    last = attempt.outcome.error or f"It answered {attempt.outcome.status_code}."
    since = iso(failing_since or attempt.started_at)
    return f"Every delivery since {since} has failed, for {FAILING.days} days. The last time: {last}"


def _next_at(number: int, outcome: Outcome) -> datetime | None:
    """Return when the next attempt is made, with jitter; None after a success or the last attempt."""
    if outcome.is_success or number >= len(DELAYS_SECONDS):
        return None
    return utc_now() + timedelta(seconds=DELAYS_SECONDS[number] * random.uniform(0.9, 1.1))  # noqa: S311  (jitter)


def _nobody() -> None:
    """Ring for nobody."""


async def _end(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=_SHUTDOWN_SECONDS)

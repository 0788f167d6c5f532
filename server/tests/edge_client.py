"""An edge, as the control plane sees one: it tells of calls, over the edge API."""

from datetime import UTC, datetime, timedelta

import httpx2
import msgspec
from voxpria_routing.decision import Explanation
from voxpria_routing.events import (
    Answered,
    Batch,
    CallEvent,
    Direction,
    Ended,
    Invited,
    Measured,
    Recorded,
    RecordingFailed,
    Ringing,
)
from voxpria_routing.snapshot import Reader, Snapshot
from voxpria_server.kit.ids import new_id
from voxpria_server.routing.snapshot import lines

TOKEN = "test-edge-token"
ACCOUNT = "acct_sandbox"
NUMBER = "+15555551234"
CALLER = "+13038921234"
DAY = datetime(2026, 3, 4, 5, 6, 7, 250000, tzinfo=UTC)
CLEAR = Direction(packets=500, lost=0, loss_percent=0.0, jitter_ms=1.5, mos=4.4, codec="PCMU")


async def whole_snapshot(conn, settings, sealer) -> Snapshot:
    """The routes, put together from their lines as an edge does."""
    reader = Reader()
    async for line in lines(conn, settings, sealer):
        reader.take(line)
    return reader.snapshot()


class Story:
    """One call and the makers of its events; `start` is its INVITE, other times are seconds from it."""

    def __init__(self, start: datetime = DAY, **invited) -> None:
        self.start, self.id = start, new_id("call")
        self._invited = {
            "account_id": ACCOUNT,
            "mode": "test",
            "from_": CALLER,
            "to": NUMBER,
            "number_id": None,
            "trunk_id": None,
            "agent_id": None,
            "edge_id": "edge_1",
            "sip_call_id": "1@carrier.test",
            "source": "127.0.0.8:5060",
            "transport": "udp",
            "max_duration_seconds": 60,
            "explanation": Explanation(summary=f"{NUMBER} goes to the agent.", tried=("number: known",)),
        } | invited

    def _make(self, kind: type, seconds: float, **fields) -> CallEvent:
        at = self.start + timedelta(seconds=seconds)
        return kind(id=new_id("evt"), call_id=self.id, at=at, **fields)

    def invited(self, **changes) -> CallEvent:
        return self._make(Invited, 0, **self._invited | changes)

    def ringing(self) -> CallEvent:
        return self._make(Ringing, 0.1)

    def answered(self, *, recording: bool = False, seconds: float = 1) -> CallEvent:
        return self._make(Answered, seconds, recording=recording)

    def ended(self, seconds: float = 8, cause="hangup", by="caller", code=200, reason="OK", **more) -> CallEvent:
        return self._make(Ended, seconds, cause=cause, by=by, sip_code=code, sip_reason=reason, **more)

    def measured(self, caller=CLEAR, agent=CLEAR) -> CallEvent:
        return self._make(Measured, 9, source="packets", caller=caller, agent=agent)

    def recorded(self) -> CallEvent:
        return self._make(Recorded, 10, duration_seconds=7.0, size_bytes=1000)

    def recording_failed(self) -> CallEvent:
        return self._make(RecordingFailed, 10, detail="The disk is full.")

    def completed(self, *, recording: bool = False) -> list[CallEvent]:
        """A call that was answered after 1 s and ended after 8."""
        return [self.invited(), self.ringing(), self.answered(recording=recording), self.ended()]

    def failed(self, cause="rejected", code=486, reason="Busy Here") -> list[CallEvent]:
        """A call that nobody took."""
        return [self.invited(), self.ringing(), self.ended(3, cause, "agent", code, reason)]


class Edge:
    """The edge's client."""

    def __init__(self, client: httpx2.AsyncClient, edge_id: str = "edge_1") -> None:
        self.client, self.edge_id = client, edge_id

    async def send(self, *events: CallEvent) -> list[dict]:
        """Send a batch that is taken; return what was rejected of it."""
        answer = await self.post("events", Batch(edge_id=self.edge_id, events=events))
        assert answer.status_code == 200, answer.text
        return answer.json()["rejected"]

    async def post(self, path: str, body: object) -> httpx2.Response:
        content = body if isinstance(body, bytes) else msgspec.json.encode(body)
        return await self.client.post(f"/edge/v1/{path}", content=content)

    async def upload(self, call_id: str, content: bytes) -> httpx2.Response:
        return await self.client.put(f"/edge/v1/calls/{call_id}/recording?edge_id={self.edge_id}", content=content)


async def connect(api, edge_id: str = "edge_1") -> Edge:
    """Return an edge of a running app."""
    return Edge(await api.client(TOKEN), edge_id)

"""The agent's neighbours, scripted: they remember what they were told, and answer as a test has set them."""

import asyncio
from pathlib import Path

from voxpria_edge.calls.call import Call
from voxpria_edge.calls.half import Half
from voxpria_edge.control_plane import ControlPlaneError
from voxpria_edge.media.rtpengine import RtpengineError
from voxpria_edge.proxy import messages
from voxpria_edge.proxy.kamailio import Request, RpcError
from voxpria_routing.decision import Dial
from voxpria_routing.events import Side


class Kamailio:
    """Both of Kamailio's ways: evapi (`sent`), and RPC (`acknowledged`, `hung_up`, `requests`, `forgotten`)."""

    def __init__(self) -> None:
        self.is_connected = True
        self.sent: list[messages.Command] = []
        self.acknowledged: list[str] = []
        self.hung_up: list[str] = []
        self.requests: list[Request] = []
        self.forgotten: list[str] = []
        self.is_deaf, self.knows_calls = False, True

    def send(self, command: messages.Command) -> None:
        self.sent.append(command)

    async def send_request(self, request: Request) -> None:
        self._hear()
        self.requests.append(request)

    async def acknowledge(self, message_id: str) -> None:
        self._hear()
        self.acknowledged.append(message_id)

    async def hang_up(self, sip_call_id: str) -> bool:
        self._hear()
        if self.knows_calls:
            self.hung_up.append(sip_call_id)
        return self.knows_calls

    async def forget(self, record: str) -> None:
        self._hear()
        self.forgotten.append(record)

    def _hear(self) -> None:
        if self.is_deaf:
            raise RpcError("deaf")


class Media:
    """rtpengine: its sessions; one that is deleted is gone."""

    def __init__(self) -> None:
        self.sessions: dict[str, dict[str, object]] = {}
        self.deleted: list[str] = []
        self.is_down = False

    async def session(self, call_id: str) -> dict[str, object] | None:
        if self.is_down:
            raise RtpengineError("down")
        return self.sessions.get(call_id)

    async def delete(self, call_id: str) -> None:
        if self.is_down:
            raise RtpengineError("down")
        self.sessions.pop(call_id, None)
        self.deleted.append(call_id)


class Store:
    """The control plane's end for recordings: fails as often as it is told to, then takes them."""

    def __init__(self, *failures: int | None) -> None:
        self._failures = list(failures)
        self.taken: dict[str, bytes] = {}

    async def hand_over_recording(self, call_id: str, file: Path) -> None:
        if self._failures:
            raise ControlPlaneError("scripted", self._failures.pop(0))
        self.taken[call_id] = await asyncio.to_thread(file.read_bytes)


class NoMiddle:
    """Of an edge that places no calls, and answers none."""

    place = ""

    def half_of(self, invite: messages.Invite) -> Half | None:
        """Return None: no INVITE is ours."""
        return None

    def is_own(self, invite: messages.Invite) -> bool:
        """Return False: no INVITE is ours."""
        return False

    def half(self, record: str) -> Half | None:
        """Return None: nothing is being dialled."""
        return None

    def announce(self, call: Call, decision: Dial, sound: Path) -> None:
        """Do nothing: no call comes in."""

    async def hang_up(self, call_id: str) -> bool:
        """Return False: no call is ours."""
        return False

    def done(self, call: Call, by: Side | None) -> None:
        """Do nothing."""

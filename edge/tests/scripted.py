"""The agent's neighbours, scripted: they remember what they were told, and answer as a test has set them."""

import asyncio
from pathlib import Path

from voxpria_edge import messages
from voxpria_edge.control_plane import ControlPlaneError
from voxpria_edge.kamailio import RpcError
from voxpria_edge.rtpengine import RtpengineError


class Kamailio:
    """Both of Kamailio's ways: evapi (`sent`), and RPC (`acknowledged`, `hung_up`)."""

    def __init__(self) -> None:
        self.is_connected = True
        self.sent: list[messages.Command] = []
        self.acknowledged: list[str] = []
        self.hung_up: list[str] = []
        self.is_deaf = False

    def send(self, command: messages.Command) -> None:
        self.sent.append(command)

    async def acknowledge(self, message_id: str) -> None:
        self._hear()
        self.acknowledged.append(message_id)

    async def hang_up(self, sip_call_id: str) -> None:
        self._hear()
        self.hung_up.append(sip_call_id)

    def _hear(self) -> None:
        if self.is_deaf:
            raise RpcError("deaf")


class Media:
    """rtpengine: how many packets each session has relayed; None is no session, and a session deleted is gone."""

    def __init__(self) -> None:
        self.relayed: dict[str, int] = {}
        self.sessions: dict[str, dict[str, object]] = {}
        self.deleted: list[str] = []
        self.is_down = False

    async def packets(self, call_id: str) -> int | None:
        if self.is_down:
            raise RtpengineError("down")
        return self.relayed.get(call_id)

    async def session(self, call_id: str) -> dict[str, object] | None:
        if self.is_down:
            raise RtpengineError("down")
        return self.sessions.get(call_id)

    async def delete(self, call_id: str) -> None:
        if self.is_down:
            raise RtpengineError("down")
        self.relayed.pop(call_id, None)
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

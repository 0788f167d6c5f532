"""rtpengine's ng protocol: bencoded dictionaries over UDP, each with a cookie that the answer repeats."""

import asyncio
import itertools
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_TRY_SECONDS = 0.5
_TRIES = 4
_DEEPEST = 32

Value = int | str | list["Value"] | dict[str, "Value"]


class RtpengineError(Exception):
    """rtpengine did not answer, or not with what was asked for."""


class Rtpengine:
    """A client of one rtpengine."""

    def __init__(self, address: str, port: int) -> None:
        self._where = (address, port)
        # rtpengine answers a cookie that it has met with the answer it gave then, also to the client before us
        self._own = secrets.token_hex(8)
        self._cookies = itertools.count(1)
        self._transport: asyncio.DatagramTransport | None = None
        self._protocol = _Protocol()

    async def open(self) -> None:
        """Make the socket."""
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self._protocol, remote_addr=self._where)

    def close(self) -> None:
        """Close the socket."""
        if self._transport is not None:
            self._transport.close()

    async def offer(self, call_id: str, from_tag: str, to_tag: str | None, sdp: str, flags: str) -> str:
        """Return an offer as its receiver is to get it; `flags` are those of Kamailio's module. Raises RtpengineError.

        The ports that either side knows stay theirs, also when another takes the place of who offered first.
        """
        return await self._describe("offer", call_id, from_tag, to_tag, sdp, flags)

    async def answer(self, call_id: str, from_tag: str, to_tag: str, sdp: str, flags: str) -> str:
        """Return the answer to an offer of `from_tag` as that is to get it. Raises RtpengineError."""
        return await self._describe("answer", call_id, from_tag, to_tag, sdp, flags)

    async def _describe(
        self, command: str, call_id: str, from_tag: str, to_tag: str | None, sdp: str, flags: str
    ) -> str:
        tags: dict[str, Value] = {"from-tag": from_tag, **({"to-tag": to_tag} if to_tag else {})}
        wanted = {"command": command, "call-id": call_id, **tags, "sdp": sdp, **read_flags(f"{flags} port-latching")}
        answer = await self._ask(wanted)
        if answer.get("result") != "ok":
            raise RtpengineError(f"{command}: {answer.get('error-reason')}")
        return str(answer["sdp"])

    async def play(self, call_id: str, tag: str, sound: Path) -> float:
        """Begin to play a sound file to who has this tag, and return its seconds. Raises RtpengineError."""
        answer = await self._ask({"command": "play media", "call-id": call_id, "from-tag": tag, "file": str(sound)})
        duration = answer.get("duration")
        if answer.get("result") != "ok" or not isinstance(duration, int):
            raise RtpengineError(f"play media: {answer.get('error-reason')}")
        return duration / 1000

    async def stop_recording(self, call_id: str) -> None:
        """Capture no more of a session. Raises RtpengineError."""
        answer = await self._ask({"command": "stop recording", "call-id": call_id})
        if answer.get("result") != "ok":
            raise RtpengineError(f"stop recording: {answer.get('error-reason')}")

    async def is_up(self) -> bool:
        """Tell whether rtpengine answers."""
        try:
            return (await self._ask({"command": "ping"})).get("result") == "pong"
        except RtpengineError:
            return False

    async def delete(self, call_id: str) -> None:
        """End a session; its capture is complete then. One that is gone already is no error."""
        await self._ask({"command": "delete", "call-id": call_id, "delete-delay": 0})

    async def session(self, call_id: str) -> dict[str, Any] | None:
        """Return all that is known of a session; None when there is none."""
        answer = await self._ask({"command": "query", "call-id": call_id})
        return dict(answer) if answer.get("result") == "ok" else None

    async def _ask(self, question: Mapping[str, Value]) -> dict[str, Value]:
        if self._transport is None:
            raise RtpengineError("not open")
        cookie = f"{self._own}-{next(self._cookies)}".encode()
        answer = self._protocol.expect(cookie)
        try:
            for _ in range(_TRIES):
                self._transport.sendto(cookie + b" " + encode(dict(question)))
                done, _pending = await asyncio.wait([answer], timeout=_TRY_SECONDS)
                if done:
                    return answer.result()
        except (OSError, ValueError) as error:
            raise RtpengineError(str(error)) from error
        finally:
            self._protocol.forget(cookie)
        raise RtpengineError("no answer")


class _Protocol(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self._expected: dict[bytes, asyncio.Future[dict[str, Value]]] = {}

    def expect(self, cookie: bytes) -> "asyncio.Future[dict[str, Value]]":
        return self._expected.setdefault(cookie, asyncio.get_running_loop().create_future())

    def forget(self, cookie: bytes) -> None:
        self._expected.pop(cookie).cancel()

    def datagram_received(self, data: bytes, _address: object) -> None:
        cookie, _, body = data.partition(b" ")
        answer = self._expected.get(cookie)
        if answer is None or answer.done():
            return
        try:
            value = decode(body)
            answer.set_result(value if isinstance(value, dict) else {})
        except ValueError as error:
            answer.set_exception(error)

    def error_received(self, error: Exception) -> None:
        """Nobody listens there just now (ICMP); the next try may find somebody."""


def read_flags(text: str) -> dict[str, Value]:
    """Return flags, written as Kamailio's module takes them, as the ng protocol's dictionary has them."""
    lists: dict[str, list[Value]] = {}
    codecs: dict[str, list[Value]] = {}
    found: dict[str, Value] = {}
    for word in text.split():
        name, equals, value = word.partition("=")
        kind, _, rest = word.partition("-")
        if equals and name in ("SDES", "OSRTP"):
            lists.setdefault(name, []).append(value)
        elif equals:
            found["record call" if name == "record-call" else name] = value
        elif kind in ("SDES", "OSRTP", "replace"):
            lists.setdefault(kind, []).append(rest)
        elif kind == "codec":
            action, _, codec = rest.partition("-")
            codecs.setdefault(action, []).append(codec)
        elif word.startswith("RTP/"):
            found["transport-protocol"] = word
        else:
            lists.setdefault("flags", []).append(word)
    return {**found, **lists, **({"codec": {**codecs}} if codecs else {})}


def encode(value: Value) -> bytes:
    """Return `value` bencoded; dictionary keys in order."""
    if isinstance(value, int):
        return b"i%de" % value
    if isinstance(value, str):
        data = value.encode(errors="surrogateescape")
        return b"%d:%s" % (len(data), data)
    if isinstance(value, list):
        return b"l" + b"".join(map(encode, value)) + b"e"
    return b"d" + b"".join(encode(key) + encode(value[key]) for key in sorted(value)) + b"e"


def decode(data: bytes) -> Value:
    """Return the value in `data`; raise ValueError for anything that is not bencode."""
    value, end = _decode(data, 0, 0)
    if end != len(data):
        raise ValueError("more than one value")
    return value


def _decode(data: bytes, at: int, depth: int) -> tuple[Value, int]:
    kind = data[at : at + 1]
    if depth > _DEEPEST:
        raise ValueError("too deep")
    if kind == b"i":
        end = data.index(b"e", at)
        return int(data[at + 1 : end]), end + 1
    if kind in (b"l", b"d"):
        return _decode_many(data, at + 1, depth + 1, is_dictionary=kind == b"d")
    colon = data.index(b":", at)
    end = colon + 1 + int(data[at:colon])
    if not colon < end <= len(data):
        raise ValueError("a string ends behind the end")
    return data[colon + 1 : end].decode(errors="surrogateescape"), end


def _decode_many(data: bytes, at: int, depth: int, *, is_dictionary: bool) -> tuple[Value, int]:
    values: list[Value] = []
    while data[at : at + 1] != b"e":
        value, at = _decode(data, at, depth)
        values.append(value)
    if not is_dictionary:
        return values, at + 1
    keys = values[::2]
    if len(values) % 2 or not all(isinstance(key, str) for key in keys):
        raise ValueError("not a dictionary")
    return {str(key): value for key, value in zip(keys, values[1::2], strict=True)}, at + 1

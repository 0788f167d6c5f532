"""`/carrier/calls`: place a call and follow it. `/agent/calls`: what the SIP agent did, and calls of its own."""

import asyncio
import json
from dataclasses import asdict
from typing import Any, Literal

import structlog
from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from voxpria_sandbox.agent import SipAgent
from voxpria_sandbox.carrier import BusyError, Carrier, Order, Result
from voxpria_sandbox.http import bodies
from voxpria_sandbox.media.speech import MAX_CHARACTERS, SpeechError
from voxpria_sandbox.sip.digest import Credentials

_MAX_SECONDS = 3600
_NUMBER = r"^\+?[A-Za-z0-9._-]{1,64}$"

log = structlog.get_logger(__name__)


class PlaceCall(BaseModel):
    """Body of `POST /carrier/calls`."""

    model_config = ConfigDict(extra="forbid")

    to: str = Field(pattern=_NUMBER)
    caller: str = Field("+13038921234", alias="from", pattern=_NUMBER)
    seconds: float = Field(5, ge=0, le=_MAX_SECONDS)
    say: str | None = Field(None, max_length=MAX_CHARACTERS)
    digits: str = Field("", pattern="^[0-9*#A-D]{0,32}$")
    digits_after_seconds: float = Field(1, ge=0, le=60)
    hangup_by: Literal["caller", "agent"] = "caller"
    transport: Literal["udp", "tcp"] = "udp"
    trunk_id: str | None = Field(None, pattern="^[A-Za-z0-9_]{1,64}$")

    def order(self) -> Order:
        """Return the carrier's order."""
        return Order(
            to=self.to,
            caller=self.caller,
            talk_seconds=self.seconds,
            words=self.say,
            digits=self.digits,
            digits_after_seconds=self.digits_after_seconds,
            hangup_by=self.hangup_by,
            transport=self.transport,
            trunk_id=self.trunk_id,
        )


class PlaceCallOut(BaseModel):
    """Body of `POST /agent/calls`: who calls whom, and what the trunk proves itself with."""

    model_config = ConfigDict(extra="forbid")

    to: str = Field(pattern=_NUMBER)
    caller: str = Field(alias="from", pattern=_NUMBER)
    username: str = Field(max_length=255)
    password: str = Field(max_length=255)
    seconds: float = Field(5, ge=0, le=_MAX_SECONDS)
    say: str | None = Field(None, max_length=MAX_CHARACTERS)

    def order(self) -> Order:
        """Return the order."""
        return Order(
            to=self.to,
            caller=self.caller,
            talk_seconds=self.seconds,
            words=self.say,
            credentials=Credentials(self.username, self.password),
        )


def routes(carrier: Carrier, provider: Carrier, agent: SipAgent) -> list[web.RouteDef]:
    """Return the routes."""

    async def place(request: web.Request) -> web.StreamResponse:
        return await _placed(request, carrier, (await bodies.read(request, PlaceCall)).order())

    async def place_out(request: web.Request) -> web.StreamResponse:
        return await _placed(request, provider, (await bodies.read(request, PlaceCallOut)).order())

    async def listed(_: web.Request) -> web.Response:
        return web.json_response({"calls": [call.report() for call in agent.calls()]})

    return [
        web.post("/carrier/calls", place),
        web.get("/agent/calls", listed),
        web.post("/agent/calls", place_out),
    ]


async def _placed(request: web.Request, carrier: Carrier, order: Order) -> web.StreamResponse:
    """Place a call, and stream how it goes."""
    progress: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()  # bounded by SIP: a few lines a call
    try:
        call = carrier.start(order, lambda event, facts: progress.put_nowait({"event": event, **facts}))
    except BusyError as error:
        raise bodies.refusal(web.HTTPTooManyRequests, "all lines of the sandbox's carrier are busy") from error
    call.add_done_callback(lambda _: progress.put_nowait(None))
    try:
        return await _follow(request, progress, call)
    finally:
        call.cancel()  # whoever asked is gone: so is the call


async def _follow(
    request: web.Request, progress: "asyncio.Queue[dict[str, Any] | None]", call: "asyncio.Task[Result]"
) -> web.StreamResponse:
    """Stream each step as a line of JSON, the result last."""
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson", "Cache-Control": "no-store"})
    await response.prepare(request)
    while (line := await progress.get()) is not None:
        await response.write(json.dumps(line).encode() + b"\n")
    await response.write(json.dumps({"event": "result", **asdict(_result(call))}).encode() + b"\n")
    await response.write_eof()
    return response


def _result(call: "asyncio.Task[Result]") -> Result:
    if call.cancelled():
        return Result(sip_reason="the sandbox was stopped")
    error = call.exception()
    if error is None:
        return call.result()
    if not isinstance(error, OSError | SpeechError):
        log.error("a call failed unexpectedly", exc_info=error)
    return Result(sip_reason=f"the call could not be tried: {error}")

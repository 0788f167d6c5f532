"""A snapshot on its way: taken whole, or asked for again."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from kamailio_words import NUMBER, ROUTES
from voxpria_edge.control_plane import ControlPlane, ControlPlaneError
from voxpria_routing import snapshot as wire
from voxpria_routing.snapshot import Snapshot

BODY = wire.encode(ROUTES)
WHOLE = wire.decode(BODY)


@asynccontextmanager
async def answering(*pieces: bytes, status: int = 200) -> AsyncIterator[ControlPlane]:
    async def handle(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(status=status)
        await answer.prepare(request)
        for piece in pieces:
            await answer.write(piece)
            await asyncio.sleep(0)
        return answer

    app = web.Application()
    app.router.add_get("/edge/v1/snapshot", handle)
    async with TestServer(app) as server:
        control_plane = ControlPlane(str(server.make_url("")), "token", "edge_1")
        try:
            yield control_plane
        finally:
            await control_plane.close()


@pytest.mark.parametrize("size", [1, 7, len(BODY)])
async def test_a_snapshot_may_come_in_any_pieces(size: int) -> None:
    pieces = [BODY[at : at + size] for at in range(0, len(BODY), size)]
    async with answering(*pieces) as control_plane:
        assert await control_plane.snapshot(0) == WHOLE


@pytest.mark.parametrize("body", [BODY[:-10], BODY.splitlines(keepends=True)[0], b"", b"{}\n", BODY + BODY, b"\xff\n"])
async def test_what_is_no_whole_snapshot_is_an_error(body: bytes) -> None:
    async with answering(body) as control_plane:
        with pytest.raises(ControlPlaneError):
            await control_plane.snapshot(0)


@pytest.mark.parametrize(("status", "said"), [(503, 503), (401, 401)])
async def test_a_refusal_says_its_status(status: int, said: int) -> None:
    async with answering(status=status) as control_plane:
        with pytest.raises(ControlPlaneError) as error:
            await control_plane.snapshot(0)
    assert error.value.status == said


async def test_no_news_is_none() -> None:
    async with answering(status=304) as control_plane:
        assert await control_plane.snapshot(1) is None


async def test_other_work_goes_on_between_the_lines() -> None:
    """A call that comes while a hundred thousand numbers are read is not kept waiting until the end."""
    numbers = {f"+1{i}": (wire.replace(NUMBER, id=f"phone_{i}", e164=f"+1{i}"),) for i in range(50_000)}
    turns = 0

    async def other_work() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    body = wire.encode(Snapshot(version=2, trunks={}, numbers=numbers))
    async with answering(body) as control_plane:
        working = asyncio.create_task(other_work())
        before = turns
        whole = await control_plane.snapshot(0)
        working.cancel()
    assert whole is not None
    assert len(whole.numbers) == 50_000
    assert turns - before > 100  # one after each line of 500

"""kill -9 in the middle of provisioning: afterwards every number is right, here and at the provider."""

import asyncio
import json
import signal

import psycopg
import pytest
from aiohttp import web
from psycopg.rows import dict_row
from voxpria_sandbox.elevenlabs import NumberStore
from voxpria_sandbox.http import elevenlabs
from voxpria_server.kit.db import Database

from server.tests.process import Process
from server.tests.test_numbers_api import BAD, ELEVENLABS, SLOW, an_edge

COUNT = 20
SLOW_SECONDS = 2.0


class Counted(NumberStore):
    """Counts the numbers that it takes on, and lets a test wait for them."""

    def __init__(self, path) -> None:
        super().__init__(path)
        self.changed = asyncio.Condition()

    async def add(self, body):
        number = await super().add(body)
        async with self.changed:
            self.changed.notify_all()
        return number

    async def until(self, count: int) -> None:
        async with asyncio.timeout(300), self.changed:
            await self.changed.wait_for(lambda: len(self.all()) >= count)


@pytest.mark.timeout(1800)
async def test_every_number_is_right_after_kill_9(settings, own_cluster):
    url = own_cluster.url("postgres")
    store = Counted(settings.data_dir / "elevenlabs.json")
    app = web.Application()
    app.add_routes(elevenlabs.routes(store, SLOW_SECONDS))
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, settings.sandbox_address, settings.http_port).start()
    process = await start(settings, url)
    database = Database(url)
    numbers = [BAD, SLOW, *(f"+15555552{i:03}" for i in range(COUNT - 2))]
    async with an_edge(database):
        trunk_id = (await asyncio.to_thread(process.post, "/v1/sip/trunks", ELEVENLABS))["id"]
        body = {"trunk_id": trunk_id, "numbers": [{"phone_number": number} for number in numbers]}
        assert (await asyncio.to_thread(process.post, "/v1/phone-numbers/bulk-import", body))["success"]
        asking = asyncio.create_task(asyncio.to_thread(ask, process, f"/v1/sip/trunks/{trunk_id}/reprovision-all"))
        for wanted in (1, 8, 15):
            await store.until(wanted)
            process.end(signal.SIGKILL)
            await asyncio.gather(asking, return_exceptions=True)
            assert pending(url) > 0, "it was over before it was killed: this shows nothing"
            process = await start(settings, url)
        async with asyncio.timeout(300):
            while pending(url):
                await asyncio.sleep(0.2)
    await asyncio.to_thread(process.end)
    await database.close()
    await runner.cleanup()
    with psycopg.connect(url, row_factory=dict_row) as connection:
        rows = connection.execute("SELECT * FROM phone_numbers").fetchall()
        events = connection.execute("SELECT body FROM events WHERE type = 'number.provisioned'").fetchall()
    found = {row["e164"]: row for row in rows}
    assert (found[BAD]["status"], "always refused" in found[BAD]["status_reason"]) == ("inactive", True)
    good = {number: row for number, row in found.items() if number != BAD}
    assert {row["status"] for row in good.values()} == {"active"}
    there = {number.phone_number: number.phone_number_id for number in store.all()}
    assert there == {number: row["provider_number_id"] for number, row in good.items()}
    told = sorted(json.loads(bytes(event["body"]))["data"]["phone_number"] for event in events)
    assert told == sorted(good)


async def start(settings, url: str) -> Process:
    process = await asyncio.to_thread(Process, settings, url, VOXPRIA_IMPORTS_PER_MINUTE="1000")
    await asyncio.to_thread(process.until, "/v1/agents", 200)
    return process


def ask(process: Process, path: str) -> None:
    process.post(path, {})


def pending(url: str) -> int:
    with psycopg.connect(url) as connection:
        statement = (
            "SELECT count(*) FROM phone_numbers"
            " WHERE status = 'provisioning' OR (status = 'active' AND needs_reprovision)"
        )
        return connection.execute(statement).fetchone()[0]

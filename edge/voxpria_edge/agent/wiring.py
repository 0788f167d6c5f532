"""Wiring only; `__main__` runs it.

Kamailio asks, `desk` answers by `voxpria_routing.decide` over `routes`, `dialling` tries servers, `book` remembers on
`spool`'s disk, `reporter` reports; `hanging_up` ends calls, `recordings` finishes those that have ended, `watch` ends
what nobody ends, `recovery` goes on with our last run's, `status` says how all of it is doing.
"""

import asyncio
import signal
from collections.abc import Coroutine, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import structlog
import uvloop

from voxpria_edge import tracing
from voxpria_edge.admission.admission import Admission
from voxpria_edge.admission.allowed import Allowed
from voxpria_edge.bridge.bridges import Bridges
from voxpria_edge.bridge.commands import Commands
from voxpria_edge.bridge.placing import Placing
from voxpria_edge.bridge.recovery import take_up
from voxpria_edge.calls.book import Book
from voxpria_edge.calls.reporter import report
from voxpria_edge.calls.spool import Spool
from voxpria_edge.control_plane import ControlPlane
from voxpria_edge.desk.desk import Desk
from voxpria_edge.desk.dialling import Dialling
from voxpria_edge.desk.hanging_up import HangingUp
from voxpria_edge.desk.taking_back import TakingBack
from voxpria_edge.desk.watch import Watch
from voxpria_edge.kit import logs
from voxpria_edge.kit.ids import new_edge_id
from voxpria_edge.media.rtpengine import Rtpengine
from voxpria_edge.proxy.kamailio import Evapi, Rpc
from voxpria_edge.recordings.announcements import Announcements
from voxpria_edge.recordings.recordings import Recordings
from voxpria_edge.routes.routes import Routes
from voxpria_edge.settings import Settings
from voxpria_edge.status import StatusReporter
from voxpria_edge.trace import Tracer
from voxpria_edge.trace.dropped import Dropped
from voxpria_edge.trace.hep import Address
from voxpria_edge.tracing import CallSpans
from voxpria_edge.trunks.diagnosis import Doctor
from voxpria_edge.trunks.health import Health
from voxpria_edge.trunks.registrar import Registrar, contact_of
from voxpria_edge.trunks.requests import Requests
from voxpria_edge.trunks.resolve import guard
from voxpria_edge.trunks.tls import Examiner
from voxpria_edge.trunks.trunk_news import tell_of_trunks

_log = structlog.get_logger(__name__)


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Run the agent until `stop` is set."""
    edge_id, token = _identity(settings), settings.edge_token_file.read_text().strip()
    async with AsyncExitStack() as stack:
        spool = Spool(settings.folder / "spool.sqlite")
        traces = tracing.set_up()
        if traces is not None:
            stack.push_async_callback(traces.close)
            spool.on_kept = CallSpans(traces).take
        control_plane = ControlPlane(settings.api_url, token, edge_id, traces)
        stack.push_async_callback(control_plane.close)
        rtpengine = Rtpengine(settings.control_address, settings.sip_port)
        await rtpengine.open()
        stack.callback(rtpengine.close)
        routes = Routes(settings.folder / "snapshot", token, control_plane)
        await asyncio.to_thread(routes.load)
        admission = Admission(lambda: routes.table)
        is_guarded = guard(allow_private=settings.private_trunks_are_allowed)
        doctor = Doctor(Examiner(settings.sandbox_authority), is_guarded)
        rpc = Rpc(settings.kamailio_socket)
        kamailio = Evapi(settings.control_address, settings.sip_port)
        book = Book(spool, rpc)
        bridges = Bridges(
            settings.control_address,
            (settings.sip_address, settings.sip_port),
            rtpengine,
            book.keep_bridge,
            admission.half_is_over,
            book.fail_placed,
        )
        dialling = Dialling(book, kamailio, admission, bridges, doctor.diagnose, is_guarded)
        book.on_changed = dialling.count
        hanging_up = HangingUp(book, rpc, bridges, lambda: routes.table)
        book.on_over = hanging_up.done
        desk = Desk(edge_id, book, kamailio, admission, dialling, hanging_up, bridges)
        requests = Requests(kamailio, is_guarded)
        desk.on_replied = requests.take
        desk.on_taken_back = TakingBack(rtpengine).take_back
        health = Health(lambda: routes.table, requests, doctor, admission.breakers, settings.health_seconds)
        registrar = Registrar(lambda: routes.table, requests, doctor, contact_of(settings))
        recordings = Recordings(
            settings.captures, _folder(settings, "recordings"), book, rtpengine, spool, control_plane
        )
        book.on_ended = recordings.take
        book.take_over(await spool.open())
        stack.push_async_callback(spool.close)
        stack.callback(recordings.close)
        tracer = _tracer(settings, spool, control_plane)
        book.on_told = tracer.take
        tracer.on_dropped = Dropped(desk.note_broken).take
        port = await _open_bridges(bridges, settings)
        stack.push_async_callback(bridges.close)
        tracer.is_inner = lambda address: address == (settings.control_address, port)
        announcements = Announcements(_folder(settings, "announcements"), lambda: routes.table)
        desk.sound_of = announcements.sound
        placing = Placing(
            edge_id, book, desk, dialling, bridges, control_plane, lambda: routes.table, announcements.sound
        )
        for call in [call for call in book.calls.values() if call.ended_at is not None]:
            recordings.take(call)
        await _until(
            stop,
            [
                spool.run(),
                kamailio.run(desk),
                book.acknowledge(),
                book.tidy(),
                recordings.run(),
                routes.follow(),
                Commands(hanging_up, placing, control_plane).run(),
                _once(take_up(list(book.calls.values()), bridges, hanging_up)),
                report(edge_id, spool, control_plane),
                announcements.run(),
                health.run(),
                registrar.run(),
                Allowed(lambda: routes.table, settings.allowed_file, rpc).run(),
                desk.strangers.tell(edge_id, control_plane),
                tell_of_trunks(edge_id, health, registrar, control_plane),
                Watch(book, hanging_up, rtpengine).run(),
                tracer.run([call.id for call in book.open_calls]),
                StatusReporter(edge_id, book, kamailio, routes, rtpengine, spool, control_plane).run(),
            ],
            desk,
        )


async def _until(stop: asyncio.Event, work: Sequence[Coroutine[Any, Any, None]], desk: Desk) -> None:
    """Do all the work until told to stop; work that ends by itself has failed, and ends all."""
    tasks = [asyncio.create_task(each) for each in work]
    stopped = asyncio.create_task(stop.wait())
    done, _ = await asyncio.wait([stopped, *tasks], return_when=asyncio.FIRST_COMPLETED)
    await desk.settle()
    for task in (stopped, *tasks):
        task.cancel()
    await asyncio.gather(stopped, *tasks, return_exceptions=True)
    for task in done - {stopped}:
        task.result()


async def _once(work: Coroutine[Any, Any, None]) -> None:
    """Do something at the start, and go on as long as all else does."""
    await work
    await asyncio.Event().wait()


async def _open_bridges(bridges: Bridges, settings: Settings) -> int:
    """Listen where requests within calls of our last run will come to; return the port."""
    path = _folder(settings) / "bridge_port"
    port = await bridges.open(int(path.read_text()) if path.exists() else 0)
    path.write_text(str(port))
    return port


def _identity(settings: Settings) -> str:
    """Return this edge's id, made once and kept."""
    path = _folder(settings) / "edge_id"
    if not path.exists():
        unfinished = path.with_suffix(".new")
        unfinished.write_text(new_edge_id())
        unfinished.rename(path)
    return path.read_text().strip()


def _tracer(settings: Settings, spool: Spool, control_plane: ControlPlane) -> Tracer:
    def ours(address: Address) -> bool:
        return address[0] == settings.sip_address and address[1] in (settings.sip_port, settings.sip_tls_port)

    return Tracer(settings.folder / "trace.sqlite", settings.trace_address, ours, spool, control_plane)


def _folder(settings: Settings, *names: str) -> Path:
    folder = settings.folder.joinpath(*names)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def main() -> None:
    """Run until SIGTERM or SIGINT."""
    settings = Settings()
    logs.set_up()

    async def body() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await run(settings, stop)

    uvloop.run(body())

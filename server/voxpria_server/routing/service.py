"""What would happen to a call: the edge's own decision, over the caller's own routes."""

from collections.abc import Mapping

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection
from voxpria_routing import digest
from voxpria_routing.decide import decide
from voxpria_routing.decision import METHOD, Decision, Dial, Invite
from voxpria_routing.dialled import readings
from voxpria_routing.snapshot import Snapshot
from voxpria_routing.table import Table

from voxpria_server.auth.service import Caller
from voxpria_server.kit.db import Row
from voxpria_server.kit.sealing import Sealer
from voxpria_server.routing import queries, snapshot, version
from voxpria_server.routing.schemas import RouteTest
from voxpria_server.settings import Settings
from voxpria_server.trunks.queries import registrations
from voxpria_server.trunks.schemas import Registration, registration


async def test_route(
    conn: AsyncConnection, settings: Settings, sealer: Sealer, caller: Caller, body: RouteTest
) -> Decision:
    """Judge a call that nobody places. Another account's trunks and numbers are as if they were not there."""
    trunks = {row.id: row for row in await queries.trunks_of(conn, caller)}
    countries = {row.config.get("country") for row in trunks.values()} - {None}
    meant = {r.e164 for user in (body.to, body.from_) for r in readings(user, sorted(countries))}
    near = {e164[:-1] + digit for e164 in meant for digit in "0123456789"}
    numbers = [row for row in await queries.numbers_of(conn, caller, near) if row.trunk_id in trunks]
    limits = await queries.call_limits(conn, caller.account_id)
    routes = snapshot.assemble(await version.current(conn), trunks, numbers, settings, sealer, limits)
    decision = decide(Table(_never_empty(routes)), _invite(body))
    return await _with_what_edges_found(conn, caller, decision, trunks)


async def _with_what_edges_found(
    conn: AsyncConnection, caller: Caller, decision: Decision, trunks: Mapping[str, Row]
) -> Decision:
    """Add what keeps such a call from coming, or its servers from taking it, where the edges have found that."""
    lines = []
    if decision.carrier is not None and decision.carrier.is_registered:
        found = map(registration, await registrations(conn, caller, decision.carrier.id))
        lines = [f"registration of {one.edge_id} with trunk {decision.carrier.name}: {_told(one)}" for one in found]
    for target in decision.targets if isinstance(decision, Dial) else ():
        row = trunks[target.id]
        if row.health_status in {"unreachable", "auth_failed"}:
            lines.append(f"health of trunk {target.name}: {row.health_status}: {row.health_detail}")
    explanation = decision.explanation
    return msgspec.structs.replace(
        decision, explanation=msgspec.structs.replace(explanation, tried=(*explanation.tried, *lines))
    )


def _told(found: Registration) -> str:
    return f"{found.status} until {found.expires_at}" if found.status == "registered" else found.detail or found.status


def _invite(body: RouteTest) -> Invite:
    given = body.credentials
    return Invite(
        request_user=body.to,
        from_user=body.from_,
        source_address=body.source_address,
        trunk_hint=body.trunk_id,
        digest=digest.prove(given.username, given.password, METHOD) if given else None,
    )


def _never_empty(routes: Snapshot) -> Snapshot:
    """Return the routes as an edge has them that has heard of us: an account without routes is no edge without."""
    return Snapshot(
        version=max(1, routes.version),
        trunks=routes.trunks,
        numbers=routes.numbers,
        limits=routes.limits,
        default_limits=routes.default_limits,
    )

"""The rules for accounts, plans and members."""

import re
from typing import Literal

from sqlalchemy.ext.asyncio import AsyncConnection

from voxpria_server.accounts import queries
from voxpria_server.accounts.models import STANDARD_PLAN
from voxpria_server.errors import ConflictError, InvalidParameterError, NotFoundError
from voxpria_server.kit.clock import utc_now
from voxpria_server.kit.db import Row
from voxpria_server.kit.ids import new_id

Role = Literal["owner", "admin", "viewer"]

_NAME = re.compile(r"[^\x00-\x1f\x7f]{1,100}")
_PLAN_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
_EMAIL = re.compile(r"[^@\s]{1,64}@[^@\s.]+(\.[^@\s.]+)+")
_LONGEST_EMAIL = 254
"""RFC 5321 section 4.5.3.1.3, less the angle brackets of a path."""


async def create(conn: AsyncConnection, name: str, plan_id: str = STANDARD_PLAN) -> Row:
    """Add an account; raise 400, or 404 plan_not_found."""
    await _check_plan(conn, plan_id)
    account_id = new_id("acct")
    await queries.add_if_missing(conn, account_id, check_name(name), plan_id, utc_now())
    return await get(conn, account_id)


async def get(conn: AsyncConnection, account_id: str) -> Row:
    """Return an account; raise 404 account_not_found."""
    return _found(await queries.find(conn, account_id))


async def update(conn: AsyncConnection, account_id: str, *, name: str | None, plan_id: str | None) -> Row:
    """Change an account's name or plan, whichever is given; requests go by the new plan from the next one on."""
    values: dict[str, object] = {}
    if name is not None:
        values["name"] = check_name(name)
    if plan_id is not None:
        await _check_plan(conn, plan_id)
        values["plan_id"] = plan_id
    if not values:
        raise InvalidParameterError("Say what to change: name or plan.", field="name")
    return _found(await queries.update(conn, account_id, values))


async def set_plan(
    conn: AsyncConnection,
    plan_id: str,
    *,
    is_sip_enabled: bool,
    requests_per_hour: int | None = None,
    imports_per_minute: int | None = None,
    webhook_attempts_per_minute: int | None = None,
    max_concurrent_calls: int | None = None,
    max_calls_per_second: float | None = None,
) -> Row:
    """Add a plan, or change the one of this id; a limit that is None is that of the settings."""
    if _PLAN_ID.fullmatch(plan_id) is None:
        raise InvalidParameterError("A plan's id is a-z, 0-9 and -, at most 40.", field="plan_id", provided=plan_id)
    values: dict[str, object] = {
        "id": plan_id,
        "is_sip_enabled": is_sip_enabled,
        "requests_per_hour": requests_per_hour,
        "imports_per_minute": imports_per_minute,
        "webhook_attempts_per_minute": webhook_attempts_per_minute,
        "max_concurrent_calls": max_concurrent_calls,
        "max_calls_per_second": max_calls_per_second,
    }
    return await queries.set_plan(conn, values)


async def add_member(conn: AsyncConnection, account_id: str, email: str, role: Role) -> Row:
    """Add a person to an account; raise 400, 404 account_not_found, or 409 member_exists."""
    account = await get(conn, account_id)
    email = email.strip().lower()
    if len(email) > _LONGEST_EMAIL or _EMAIL.fullmatch(email) is None:
        raise InvalidParameterError("This is no e-mail address.", field="email", provided=email)
    values = {"id": new_id("member"), "account_id": account.id, "email": email, "role": role, "created_at": utc_now()}
    row = await queries.add_member(conn, values)
    if row is None:
        raise ConflictError("This account has a member of this address.", code="member_exists")
    return row


def check_name(name: str) -> str:
    """Return `name` if it can be one; raise 400."""
    if _NAME.fullmatch(name) is None or not name.strip():
        raise InvalidParameterError("A name is one line of 1 to 100 characters.", field="name")
    return name.strip()


async def _check_plan(conn: AsyncConnection, plan_id: str) -> None:
    if await queries.find_plan(conn, plan_id) is None:
        raise NotFoundError("There is no plan with this id.", code="plan_not_found")


def _found(row: Row | None) -> Row:
    if row is None:
        raise NotFoundError("There is no account with this id.", code="account_not_found")
    return row

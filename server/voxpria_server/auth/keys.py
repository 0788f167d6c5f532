"""The life of an API key: made, shown once, rolled, revoked.

Nothing of a key is cached in any process: each request asks the database. So a key ends for all of them with the
commit that ends it.
"""

import secrets
from collections.abc import Collection
from datetime import datetime, timedelta
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from voxpria_server.accounts import service as accounts
from voxpria_server.auth import queries
from voxpria_server.auth.service import SCOPES, Mode, hash_secret
from voxpria_server.errors import ConflictError, InvalidParameterError, NotFoundError
from voxpria_server.kit.clock import utc_now
from voxpria_server.kit.db import Row
from voxpria_server.kit.ids import new_id

SECRET_BYTES = 32
MOST_NETWORKS = 100
LONGEST_OVERLAP = timedelta(days=30)
_HINT_LENGTH = 4


async def create(
    conn: AsyncConnection,
    account_id: str,
    mode: Mode,
    name: str,
    *,
    scopes: Collection[str] = SCOPES,
    networks: Collection[str] = (),
    expires_at: datetime | None = None,
) -> tuple[Row, str]:
    """Make a key; return it and its secret, which nobody can tell again.

    `networks`: where it may be used from (CIDR, or single addresses); none means anywhere. Raises 400, or 404
    account_not_found.
    """
    account = await accounts.get(conn, account_id)
    if unknown := sorted(set(scopes) - SCOPES):
        raise InvalidParameterError("There is no such scope.", field="scopes", provided=unknown[0])
    if not scopes:
        raise InvalidParameterError("A key has at least one scope.", field="scopes")
    if expires_at is not None and expires_at <= utc_now():
        raise InvalidParameterError("This expiry is past.", field="expires_at")
    values = {
        "account_id": account.id,
        "mode": mode,
        "name": accounts.check_name(name),
        "scopes": sorted(set(scopes)),
        "allowed_networks": _networks(networks),
        "expires_at": expires_at,
    }
    return await _add(conn, values)


async def roll(conn: AsyncConnection, key_id: str, overlap: timedelta) -> tuple[Row, str]:
    """Make a key like this one, which itself works on until the overlap ends; return the new one and its secret.

    Raises 404 key_not_found, or 409 key_is_over if there is nothing left to roll.
    """
    if not timedelta() <= overlap <= LONGEST_OVERLAP:
        raise InvalidParameterError(f"An overlap is 0 to {LONGEST_OVERLAP.days} days.", field="overlap")
    now = utc_now()
    old = await _get(conn, key_id)
    if is_over(old, now):
        raise ConflictError("This key is revoked or expired.", code="key_is_over")
    names = ("account_id", "mode", "name", "scopes", "allowed_networks", "expires_at")
    new, secret = await _add(conn, {name: getattr(old, name) for name in names})
    ends_at = now + overlap if old.expires_at is None else min(old.expires_at, now + overlap)
    await queries.update_key(conn, old.id, {"expires_at": ends_at})
    return new, secret


async def revoke(conn: AsyncConnection, key_id: str) -> Row:
    """End a key, for good and at once; again is no error. Raises 404 key_not_found."""
    row = await _get(conn, key_id)
    return row if row.revoked_at else await queries.update_key(conn, row.id, {"revoked_at": utc_now()})


def is_over(row: Row, now: datetime) -> bool:
    """Tell whether a key no longer works."""
    return row.revoked_at is not None or (row.expires_at is not None and row.expires_at <= now)


async def _add(conn: AsyncConnection, values: dict[str, Any]) -> tuple[Row, str]:
    secret = f"vox_sk_{values['mode']}_{secrets.token_hex(SECRET_BYTES)}"
    made = {
        "id": new_id("key"),
        "secret_sha256": hash_secret(secret),
        "hint": secret[-_HINT_LENGTH:],
        "created_at": utc_now(),
    }
    return await queries.add_key(conn, values | made), secret


async def _get(conn: AsyncConnection, key_id: str) -> Row:
    row = await queries.find_key(conn, key_id, lock=True)
    if row is None:
        raise NotFoundError("There is no key with this id.", code="key_not_found")
    return row


def _networks(texts: Collection[str]) -> list[IPv4Network | IPv6Network]:
    if len(texts) > MOST_NETWORKS:
        raise InvalidParameterError(f"At most {MOST_NETWORKS} networks.", field="allowed_networks")
    return sorted({_network(text) for text in texts}, key=str)


def _network(text: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(text)
    except ValueError as error:
        message = f"Not a network in CIDR form: {error}."
        raise InvalidParameterError(message, field="allowed_networks", provided=text) from None

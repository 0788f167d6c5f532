"""Who is calling. An endpoint asks for it in its signature, on a router of `KeyedRoute`s.

async def list_calls(caller: Annotated[Caller, Depends(require("calls:read"))], conn: Connection) -> …
"""

import hashlib
import re
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from typing import Literal

import asyncpg
import msgspec
from fastapi import Request
from sqlalchemy.ext.asyncio import AsyncConnection

from voxpria_server.accounts import queries as accounts
from voxpria_server.accounts.models import STANDARD_PLAN
from voxpria_server.auth import queries
from voxpria_server.auth.gate import Gate
from voxpria_server.auth.limits import Window, next_reset
from voxpria_server.errors import ForbiddenError, UnauthorizedError
from voxpria_server.kit.clock import utc_now
from voxpria_server.settings import Settings

Mode = Literal["test", "live"]

AREAS = ("trunks", "numbers", "calls", "webhooks", "agents")
SCOPES = frozenset(f"{area}:{right}" for area in AREAS for right in ("read", "write"))
SIP_AREAS = frozenset({"trunks", "numbers", "calls", "agents"})
"""What an account can't use whose plan is without SIP."""

DOCUMENTED_TEST_KEY = "vox_sk_test_abc123xyz789"
"""The key that the API reference prints: public, so it may only ever work where the sandbox is on."""

SANDBOX_ACCOUNT_ID = "acct_sandbox"
_KEY = re.compile(r"vox_sk_(?P<mode>test|live)_[A-Za-z0-9_]{1,128}")


class Caller(msgspec.Struct, frozen=True):
    """Who is calling, and what they see: one account in one mode."""

    account_id: str
    mode: Mode
    key_id: str
    scopes: frozenset[str]


class Permission:
    """The dependency that gives the Caller, whose key has this scope: `KeyedRoute` has seen to it."""

    def __init__(self, scope: str) -> None:
        if scope not in SCOPES:
            raise ValueError(scope)
        self.scope = scope

    async def __call__(self, request: Request) -> Caller:
        """Return the caller."""
        caller: Caller = request.state.caller
        return caller


def require(scope: str) -> Permission:
    """Return the dependency that gives the Caller, who must have `scope`."""
    return Permission(scope)


def hash_secret(secret: str) -> bytes:
    """Return what is kept of a key. A plain digest will do: a key is 256 random bits, there is nothing to guess."""
    return hashlib.sha256(secret.encode()).digest()


async def seed_sandbox(conn: AsyncConnection) -> None:
    """Make the sandbox's account and the documented key; again is no error."""
    now = utc_now()
    await accounts.add_if_missing(conn, SANDBOX_ACCOUNT_ID, "Sandbox", STANDARD_PLAN, now)
    values = {
        "id": "key_sandbox",
        "account_id": SANDBOX_ACCOUNT_ID,
        "mode": "test",
        "name": "Documented test key",
        "secret_sha256": hash_secret(DOCUMENTED_TEST_KEY),
        "hint": DOCUMENTED_TEST_KEY[-4:],
        "scopes": sorted(SCOPES),
        "created_at": now,
    }
    await queries.add_key_if_missing(conn, values)


async def authenticate(request: Request, scope: str, *, counts_imports: bool) -> Caller:
    """Return who is calling, and count the request.

    Raises 401 api_key_missing or invalid_api_key, 403 insufficient_permissions or feature_not_enabled, 429
    rate_limit_exceeded. From the moment the key is known, the answer's headers say where the limit stands: that of
    imports where the endpoint `counts_imports`, else that of requests.
    """
    settings: Settings = request.app.state.settings
    gate: Gate = request.app.state.gate
    secret = _secret(request.headers.get("authorization", ""))
    if not _may_be_valid(secret, settings, request.headers.get("host", "")):
        raise _invalid_key()
    place = await gate.enter(hash_secret(secret), _address(request), counts_imports=counts_imports)
    if place is None:
        raise _invalid_key()
    key, used = place
    if not key["is_address_allowed"]:
        raise ForbiddenError("This API key may not be used from this address.")
    if key["is_use_untold"]:
        await queries.note_use(request.app.state.database, key["id"])
    requests = _requests(key, used)
    shown = _imports(key) if counts_imports and not requests.is_exceeded else requests
    request.state.headers.update(shown.headers)
    if requests.is_exceeded:
        raise requests.error
    _check_permission(key, scope)
    return Caller(account_id=key["account_id"], mode=key["mode"], key_id=key["id"], scopes=frozenset(key["scopes"]))


def _may_be_valid(secret: str, settings: Settings, host: str) -> bool:
    """Tell whether the database need be asked about a key."""
    match = _KEY.fullmatch(secret)
    if match is None or (match["mode"] == "live" and settings.is_sandbox_host(host)):
        return False
    return settings.sandbox or secret != DOCUMENTED_TEST_KEY


def _requests(key: asyncpg.Record, used: int) -> Window:
    limit, resets_at = key["requests_per_hour"], key["resets_at"]
    return Window("requests", limit, used, resets_at, resets_at - int(key["now"]), is_exceeded=used > limit)


def _imports(key: asyncpg.Record) -> Window:
    resets_at = key["imports_resets_at"] or next_reset("imports", key["now"])
    seconds_left = resets_at - int(key["now"])
    return Window("imports", key["imports_per_minute"], key["imports_used"], resets_at, seconds_left, is_exceeded=False)


def _check_permission(key: asyncpg.Record, scope: str) -> None:
    if scope not in key["scopes"]:
        raise ForbiddenError("This API key lacks a permission that this takes.", details={"required": scope})
    if scope.partition(":")[0] in SIP_AREAS and not key["is_sip_enabled"]:
        raise ForbiddenError("This account's plan is without SIP.", code="feature_not_enabled")


def _secret(header: str) -> str:
    """Return the key in an Authorization header (RFC 6750 section 2.1)."""
    scheme, _, secret = header.partition(" ")
    if scheme.lower() != "bearer" or not secret.strip():
        raise UnauthorizedError(
            "No API key was sent; send it as: Authorization: Bearer YOUR_API_KEY",
            code="api_key_missing",
            headers={"WWW-Authenticate": "Bearer"},
        )
    return secret.strip()


def _address(request: Request) -> str | None:
    """Return the client's address, if it has one: by its socket, or as a trusted proxy says (see main)."""
    return _plain(request.client.host) if request.client else None


@lru_cache(maxsize=1000)
def _plain(host: str) -> str | None:
    """Return an address as PostgreSQL takes it, one of IPv4 as such; None of any other text."""
    try:
        address = ip_address(host)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address).partition("%")[0]


def _invalid_key() -> UnauthorizedError:
    return UnauthorizedError(
        "This API key is unknown, revoked or expired, or of a mode that is not served here.",
        headers={"WWW-Authenticate": 'Bearer error="invalid_token"'},
    )

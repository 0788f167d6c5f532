"""The operator's command line: accounts, plans, members, API keys; straight on the database.

python -m voxpria_server.admin --help        (`./run admin` gives it a running instance's settings)
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import date, datetime, timedelta
from functools import partial
from ipaddress import IPv4Network, IPv6Network
from typing import Annotated, Any, TypeVar

import psycopg
import typer
from sqlalchemy.ext.asyncio import AsyncConnection

from voxpria_server.accounts import queries as account_queries
from voxpria_server.accounts import service as account_rules
from voxpria_server.accounts.models import STANDARD_PLAN
from voxpria_server.auth import keys as key_rules
from voxpria_server.auth import queries as key_queries
from voxpria_server.auth.service import SCOPES, Mode
from voxpria_server.edge_api import queries as edge_queries
from voxpria_server.edge_api.service import REFUSED_KEPT_DAYS
from voxpria_server.errors import ApiError
from voxpria_server.kit import logs
from voxpria_server.kit.clock import iso, utc_now
from voxpria_server.kit.db import Database, DatabaseUnavailableError, Row
from voxpria_server.migrations import migrate_when_up
from voxpria_server.routing import version
from voxpria_server.settings import Settings

T = TypeVar("T")

_WAIT_SECONDS = 5.0
_HIDDEN = frozenset({"secret_sha256"})
_options: dict[str, bool] = {"json": False}

app = typer.Typer(add_completion=False, no_args_is_help=True, help="VoxPria's accounts, plans, members and API keys.")
accounts = typer.Typer(no_args_is_help=True, help="Accounts: what every object belongs to.")
plans = typer.Typer(no_args_is_help=True, help="Plans: what accounts may do.")
members = typer.Typer(no_args_is_help=True, help="Members: the people of an account.")
keys = typer.Typer(no_args_is_help=True, help="API keys: what programs show.")
routes = typer.Typer(no_args_is_help=True, help="Routes: what the edges hold.")
_groups = {"accounts": accounts, "plans": plans, "members": members, "keys": keys, "routes": routes}
for name, group in _groups.items():
    app.add_typer(group, name=name)

AccountId = Annotated[str, typer.Argument(metavar="ACCOUNT", help="The account's id, acct_….")]
KeyId = Annotated[str, typer.Argument(metavar="KEY", help="The key's id, key_….")]
PlanId = Annotated[str, typer.Option("--plan", help="The plan's id.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Default: what the server's settings say.")]


@app.callback()
def admin(
    *, as_json: Annotated[bool, typer.Option("--json", help="Answer in JSON, one object a line.")] = False
) -> None:
    """Manage a server's accounts, plans, members and API keys."""
    _options["json"] = as_json
    logs.set_up("WARNING")


@accounts.command("create")
def create_account(name: str, plan: PlanId = STANDARD_PLAN) -> None:
    """Add an account."""
    _show(_run(lambda conn: account_rules.create(conn, name, plan)))


@accounts.command("list")
def list_accounts() -> None:
    """List accounts."""
    _show(*_run(account_queries.list_all))


@accounts.command("update")
def update_account(
    account: AccountId, name: str | None = None, plan: Annotated[str | None, typer.Option(help="The plan's id.")] = None
) -> None:
    """Change an account's name or plan."""
    _show(_run(lambda conn: account_rules.update(conn, account, name=name, plan_id=plan)))


@plans.command("list")
def list_plans() -> None:
    """List plans."""
    _show(*_run(account_queries.list_plans))


@plans.command("set")
def set_plan(
    plan: str,
    *,
    sip: Annotated[bool, typer.Option(help="Whether SIP is on; without it trunks, numbers, agents, calls are 403.")],
    requests_per_hour: Limit = None,
    imports_per_minute: Limit = None,
    webhook_attempts_per_minute: Limit = None,
    max_concurrent_calls: Limit = None,
    max_calls_per_second: Annotated[
        float | None, typer.Option(min=0.001, help="Default: what the server's settings say.")
    ] = None,
) -> None:
    """Add a plan, or change all of the one of this id. Edges hold to its limits of calls, each by itself, at once."""
    work = partial(
        account_rules.set_plan,
        plan_id=plan,
        is_sip_enabled=sip,
        requests_per_hour=requests_per_hour,
        imports_per_minute=imports_per_minute,
        webhook_attempts_per_minute=webhook_attempts_per_minute,
        max_concurrent_calls=max_concurrent_calls,
        max_calls_per_second=max_calls_per_second,
    )
    _show(_run(work))


@members.command("add")
def add_member(account: AccountId, email: str, role: account_rules.Role = "owner") -> None:
    """Add a person to an account."""
    _show(_run(lambda conn: account_rules.add_member(conn, account, email, role)))


@members.command("list")
def list_members(account: AccountId) -> None:
    """List an account's members."""
    _show(*_run(lambda conn: _of_account(conn, account, account_queries.list_members)))


@keys.command("create")
def create_key(
    account: AccountId,
    name: Annotated[str, typer.Option(help="What the key is for.")],
    mode: Annotated[Mode, typer.Option(help="What it sees and does.")] = "test",
    scope: Annotated[
        list[str] | None, typer.Option(help=f"Repeatable. Default: all. One of {', '.join(sorted(SCOPES))}.")
    ] = None,
    allow: Annotated[
        list[str] | None, typer.Option(help="A network (CIDR) it may be used from. Repeatable. Default: anywhere.")
    ] = None,
    expires_in_days: Annotated[float | None, typer.Option(min=0, help="Default: never.")] = None,
) -> None:
    """Make a key. Its secret is shown now and never again."""
    expires_at = None if expires_in_days is None else utc_now() + timedelta(days=expires_in_days)
    work = partial(
        key_rules.create,
        account_id=account,
        mode=mode,
        name=name,
        scopes=scope or SCOPES,
        networks=allow or (),
        expires_at=expires_at,
    )
    _show_secret(_run(work))


@keys.command("list")
def list_keys(account: AccountId) -> None:
    """List an account's keys, newest first."""
    _show(*_run(lambda conn: _of_account(conn, account, key_queries.list_keys)))


@keys.command("roll")
def roll_key(
    key: KeyId, overlap_hours: Annotated[float, typer.Option(min=0, help="How long the old one works on.")] = 24
) -> None:
    """Make a new key in place of one. The new secret is shown now and never again."""
    _show_secret(_run(lambda conn: key_rules.roll(conn, key, timedelta(hours=overlap_hours))))


@keys.command("revoke")
def revoke_key(key: KeyId) -> None:
    """End a key at once, on every server."""
    _show(_run(lambda conn: key_rules.revoke(conn, key)))


@routes.command("renew")
def renew_routes() -> None:
    """Have every edge take all routes anew: to be done after the database was restored from a backup."""
    _print({"version": _run(version.leap)})


@app.command("refused")
def list_refused(
    days: Annotated[int, typer.Option(min=1, max=REFUSED_KEPT_DAYS, help="Today, and how many days before.")] = 1,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many at most.")] = 50,
) -> None:
    """List refused calls that are no account's, latest first: by day, address and cause, with what would mend it."""
    since = utc_now().date() - timedelta(days=days - 1)
    _show(*_run(lambda conn: edge_queries.list_refused(conn, since, limit)))


async def _of_account(
    conn: AsyncConnection, account_id: str, look: Callable[[AsyncConnection, str], Awaitable[T]]
) -> T:
    account = await account_rules.get(conn, account_id)
    return await look(conn, account.id)


def _run(work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
    """Return what `work` makes of a transaction; end the command, saying why, where it can't be done."""
    url = Settings().database_url.get_secret_value()
    try:
        migrate_when_up(url, _WAIT_SECONDS)
        return asyncio.run(_in_transaction(url, work))
    except ApiError as error:
        raise _failure(error.message) from None
    except (psycopg.OperationalError, DatabaseUnavailableError) as error:
        raise _failure(f"The database does not answer ({type(error).__name__}): is the server running?") from None


async def _in_transaction(url: str, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
    database = Database(url)
    try:
        async with database.transaction() as conn:
            return await work(conn)
    finally:
        await database.close()


def _failure(message: str) -> typer.Exit:
    typer.echo(message, err=True)
    return typer.Exit(1)


def _show_secret(made: tuple[Row, str]) -> None:
    row, secret = made
    _print(_fields(row) | {"secret": secret})
    typer.echo("The secret is not shown again; only its hash is kept.", err=True)


def _show(*rows: Row) -> None:
    for index, row in enumerate(rows):
        if index and not _options["json"]:
            typer.echo()
        _print(_fields(row))


def _print(fields: Mapping[str, Any]) -> None:
    if _options["json"]:
        typer.echo(json.dumps(fields))
        return
    width = max(map(len, fields))
    for label, value in fields.items():
        typer.echo(f"{label:{width}}  {_words(value)}")


def _words(value: Any) -> str:  # noqa: ANN401  (whatever a column holds)
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case list():
            return " ".join(value) or "-"
        case _:
            return str(value)


def _fields(row: Row) -> dict[str, Any]:
    return {label: _plain(value) for label, value in row._mapping.items() if label not in _HIDDEN}


def _plain(value: Any) -> Any:  # noqa: ANN401  (whatever a column holds)
    match value:
        case datetime():
            return iso(value)
        case date():
            return value.isoformat()
        case Sequence() if not isinstance(value, str):
            return [_plain(part) for part in value]
        case IPv4Network() | IPv6Network():
            return str(value)
        case _:
            return value


if __name__ == "__main__":
    app(prog_name="./run admin")

"""Every SQL statement of this slice."""

from collections.abc import Sequence
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from voxpria_server.accounts.models import accounts, members, plans
from voxpria_server.kit.db import Row


async def find(conn: AsyncConnection, account_id: str) -> Row | None:
    """Return an account."""
    return (await conn.execute(sa.select(accounts).where(accounts.c.id == account_id))).one_or_none()


async def list_all(conn: AsyncConnection) -> Sequence[Row]:
    """Return every account, oldest first."""
    return (await conn.execute(sa.select(accounts).order_by(accounts.c.created_at, accounts.c.id))).all()


async def add_if_missing(conn: AsyncConnection, account_id: str, name: str, plan_id: str, created_at: datetime) -> None:
    """Add an account, if it is not there."""
    statement = insert(accounts).values(id=account_id, name=name, plan_id=plan_id, created_at=created_at)
    await conn.execute(statement.on_conflict_do_nothing())


async def update(conn: AsyncConnection, account_id: str, values: dict[str, object]) -> Row | None:
    """Change an account and return it as it now is."""
    statement = sa.update(accounts).where(accounts.c.id == account_id).values(values).returning(accounts)
    row: Row | None = (await conn.execute(statement)).one_or_none()
    return row


async def find_plan(conn: AsyncConnection, plan_id: str) -> Row | None:
    """Return a plan."""
    return (await conn.execute(sa.select(plans).where(plans.c.id == plan_id))).one_or_none()


async def list_plans(conn: AsyncConnection) -> Sequence[Row]:
    """Return every plan."""
    return (await conn.execute(sa.select(plans).order_by(plans.c.id))).all()


async def set_plan(conn: AsyncConnection, values: dict[str, object]) -> Row:
    """Add a plan, or change the one of this id."""
    statement = insert(plans).values(values)
    statement = statement.on_conflict_do_update(index_elements=["id"], set_=values)
    row: Row = (await conn.execute(statement.returning(plans))).one()
    return row


async def add_member(conn: AsyncConnection, values: dict[str, object]) -> Row | None:
    """Add a member; None if the account has one of this address."""
    statement = insert(members).values(values).on_conflict_do_nothing(index_elements=["account_id", "email"])
    row: Row | None = (await conn.execute(statement.returning(members))).one_or_none()
    return row


async def list_members(conn: AsyncConnection, account_id: str) -> Sequence[Row]:
    """Return an account's members, oldest first."""
    statement = sa.select(members).where(members.c.account_id == account_id)
    return (await conn.execute(statement.order_by(members.c.id))).all()

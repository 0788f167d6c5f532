"""Pages of a list: `page` and `per_page`, or `starting_after` an id for stable deep paging."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar

from fastapi import Depends, Query, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel

from voxpria_server.kit.answers import encode
from voxpria_server.kit.db import Database
from voxpria_server.kit.ids import may_be_given

T = TypeVar("T")


class Pagination(BaseModel):
    """Where a page stands: `total` counts everything that fits the filter."""

    page: int
    per_page: int
    total: int


class Listing(BaseModel, Generic[T]):
    """One page of a list, newest first."""

    data: list[T]
    pagination: Pagination


@dataclass(frozen=True)
class PageQuery:
    """The page asked for. With `starting_after`, the page begins right after that id, and `page` counts from there."""

    page: int
    per_page: int
    starting_after: str | None

    async def fetch(
        self,
        database: Database,
        kind: str,
        shown: str,
        source: str,
        wanted: str,
        args: Sequence[object],
        *,
        count: str | None = None,
    ) -> tuple[list[dict[str, Any]], int]:
        """Return this page of `source` (SQL, its rows' ids in `id`), and how many rows fit `wanted`, of one moment.

        `kind` is the prefix of the rows' ids: what can't be an id of theirs, `starting_after` it is refused. A row that
        is gone still marks its place, so that who deletes what he lists can go on.

        `shown`, `source` and `wanted` are constants of the program, with `args` as $1, $2, … in them; so is `count`, a
        query that knows how many rows fit without looking at them. The page's ids are found first, so that of the
        rows before it nothing is read but the index.
        """
        if self.starting_after is not None and not may_be_given(self.starting_after, kind):
            raise _no_place(self.starting_after, kind)
        counted = count or f"SELECT count(*) FROM {source} WHERE {wanted}"  # noqa: S608
        after, most, offset = (f"${len(args) + n}" for n in (1, 2, 3))
        sql = (
            f"WITH page AS (SELECT {shown} FROM unnest(ARRAY("  # noqa: S608
            f"SELECT id FROM {source} WHERE {wanted} AND ({after}::text IS NULL OR id < {after})"
            f" ORDER BY id DESC LIMIT {most}::int OFFSET {offset}::bigint)) AS ids (id) JOIN {source} USING (id))"
            f" SELECT ({counted}) AS total, page.*"
            " FROM (SELECT) AS one LEFT JOIN page ON true ORDER BY page.id DESC"
        )
        rows = await database.fetch(sql, *args, self.starting_after, self.per_page, (self.page - 1) * self.per_page)
        found = [dict(row.items()) for row in rows if row["id"] is not None]
        for row in found:
            del row["total"]
        return found, rows[0]["total"]

    def render(self, rows: Iterable[T], total: int) -> Listing[T]:
        """Return the body of a list's answer."""
        return Listing(data=list(rows), pagination=Pagination(page=self.page, per_page=self.per_page, total=total))

    def encode(self, items: Sequence[object], total: int) -> Response:
        """Return a list's answer, its items encoded as they are: for lists that must be fast."""
        pagination = {"page": self.page, "per_page": self.per_page, "total": total}
        return encode({"data": items, "pagination": pagination})


def _no_place(given: str, kind: str) -> RequestValidationError:
    message = f"the id of a row of this list, as `{kind}_…`"
    where = ("query", "starting_after")
    return RequestValidationError([{"type": "value_error", "loc": where, "msg": message, "input": given}])


async def _page(
    page: Annotated[int, Query(ge=1, le=1_000_000, description="Page number, from 1.")] = 1,
    per_page: Annotated[int, Query(ge=1, le=100, description="Rows a page.")] = 20,
    starting_after: Annotated[
        str | None, Query(max_length=64, description="Begin after the row with this id, instead of at a page.")
    ] = None,
) -> PageQuery:
    return PageQuery(page=page, per_page=per_page, starting_after=starting_after)


Page = Annotated[PageQuery, Depends(_page)]

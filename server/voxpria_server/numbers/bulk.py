"""Importing many numbers: each row is judged for itself, and none is lost or doubled whatever happens.

At once, all rows are added by one statement, once all have been judged. Queued, each row has a transaction of its own
in which the number is added and the row's verdict kept, so that a crash undoes both or neither.
"""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from json import JSONDecodeError
from typing import Any

from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncConnection

from voxpria_server.auth.limits import Allowance
from voxpria_server.auth.service import Caller
from voxpria_server.errors import ApiError, InvalidParameterError, NotFoundError, as_api_error
from voxpria_server.kit import jobs
from voxpria_server.kit.clock import utc_now
from voxpria_server.kit.db import Row
from voxpria_server.kit.ids import new_id
from voxpria_server.kit.routes import read_json, refuse_unkeepable
from voxpria_server.numbers import queries, service
from voxpria_server.numbers.schemas import CSV_COLUMNS, MAX_ROWS, BulkImport, BulkRow, NumberImport, Verdict
from voxpria_server.numbers.service import Imported

BULK_TASK = "numbers:bulk-import"
BULK_QUEUE = "imports"

_LIMIT_REACHED = "This account has used up its imports of this minute: send the row again, or the batch with queue."
_SHOWN_LENGTH = 64


class LimitReachedError(Exception):
    """The account has used up its imports of this minute: the row has to wait."""


def parse_json(body: bytes) -> BulkImport:
    """Return the batch in a JSON body; raise 400."""
    try:
        content = read_json(body)
    except JSONDecodeError as error:
        raise InvalidParameterError(f"The body is not valid JSON: {error.msg}.", field="body") from None
    try:
        return BulkImport.model_validate(content)
    except ValidationError as error:
        raise _in_body(error) from None


def parse_csv(body: bytes, defaults: Mapping[str, Any]) -> BulkImport:
    """Return the batch in a CSV body (RFC 4180, UTF-8, with a header line); an empty cell says nothing. Raises 400."""
    try:
        reader = csv.DictReader(io.StringIO(body.decode("utf-8-sig"), newline=""), strict=True)
        names = [name.strip().lower() for name in reader.fieldnames or ()]
        _check_columns(names)
        reader.fieldnames = names
        rows = [_of_cells(cells) for cells in reader]
    except (UnicodeDecodeError, csv.Error):
        raise InvalidParameterError("The body is not CSV in UTF-8.", field="body") from None
    try:
        return BulkImport.model_validate({**defaults, "numbers": rows})
    except ValidationError as error:
        raise _in_body(error) from None


async def import_now(conn: AsyncConnection, caller: Caller, batch: BulkImport, allowance: Allowance) -> list[Verdict]:
    """Import every row that fits and for which an import is left; return a verdict a row."""
    rows = batch.rows()
    verdicts = await _import(conn, caller, rows, allowance)
    return [
        verdict or Verdict.failed(position, _shown(row), "import_limit_exceeded", _LIMIT_REACHED, {})
        for position, (row, verdict) in enumerate(zip(rows, verdicts, strict=True), start=1)
    ]


async def judge(conn: AsyncConnection, caller: Caller, batch: BulkImport) -> list[Verdict]:
    """Return what importing would do but for the limit; the numbers are added, so the transaction must be undone."""
    verdicts = await import_now(conn, caller, batch, _NoLimit())
    return [verdict.model_copy(update={"id": None}) for verdict in verdicts]


async def enqueue(conn: AsyncConnection, caller: Caller, batch: BulkImport) -> str:
    """Keep the batch and have it imported, row after row, as the limit allows; return the import's id. Raises 400."""
    refuse_unkeepable({"numbers": batch.numbers})  # they are kept as they came, until their turn
    import_id = new_id("import")
    await queries.add_import(conn, caller, import_id, batch.rows(), utc_now())
    await start(conn, import_id)
    return import_id


async def start(conn: AsyncConnection, import_id: str, *, delay_seconds: float = 0) -> None:
    """Defer the job of a queued import: one at a time, and none beside one that waits."""
    key = f"{BULK_TASK}:{import_id}"
    await jobs.defer(
        conn,
        BULK_TASK,
        {"import_id": import_id},
        queue=BULK_QUEUE,
        lock=key,
        queueing_lock=key,
        delay_seconds=delay_seconds,
    )


async def import_next(conn: AsyncConnection, import_id: str, allowance_of: Callable[[Row], Allowance]) -> bool:
    """Import the next row of a queued import and keep its verdict, in one transaction; False if none is left.

    Raises LimitReachedError, which leaves the row for later.
    """
    row = await queries.next_row_of_job(conn, import_id)
    if row is None:
        await queries.complete_import_of_job(conn, import_id, utc_now())
        return False
    caller = Caller(account_id=row.account_id, mode=row.mode, key_id=row.key_id, scopes=frozenset())
    (verdict,) = await _import(conn, caller, [row.body], allowance_of(row), first=row.position)
    if verdict is None:
        raise LimitReachedError
    await queries.keep_verdict_of_job(conn, import_id, verdict.model_dump())
    return True


async def progress(conn: AsyncConnection, caller: Caller, import_id: str) -> tuple[Row, Sequence[Row]]:
    """Return a queued import and its rows; raise 404 import_not_found."""
    found = await queries.find_import(conn, caller, import_id)
    if found is None:
        raise NotFoundError("There is no bulk import with this id.", code="import_not_found")
    return found, await queries.rows_of_import(conn, import_id)


async def _import(
    conn: AsyncConnection, caller: Caller, rows: Sequence[BulkRow], allowance: Allowance, *, first: int = 1
) -> list[Verdict | None]:
    """Import rows, their positions counted from `first`; return a verdict a row, None for one that has to wait."""
    asked = [_parse(row) for row in rows]
    bodies = [one for one in asked if isinstance(one, NumberImport)]
    judged = iter(await service.import_numbers(conn, caller, bodies, allowance))
    outcomes = [next(judged) if isinstance(one, NumberImport) else one for one in asked]
    return [_verdict(position, *each) for position, each in enumerate(zip(rows, outcomes, strict=True), start=first)]


def _verdict(position: int, row: BulkRow, outcome: Imported | ApiError | None) -> Verdict | None:
    match outcome:
        case Imported():
            return Verdict(row=position, phone_number=outcome.e164, status="success", id=outcome.id)
        case ApiError():
            return Verdict.failed(position, _shown(row), outcome.code, outcome.message, outcome.details)
        case None:
            return None


class _NoLimit:
    """The allowance of a dry run."""

    async def left(self, _conn: AsyncConnection) -> int:
        return MAX_ROWS

    async def count(self, _conn: AsyncConnection, _count: int) -> None:
        pass


def _shown(row: BulkRow) -> str | None:
    number = row.get("phone_number")
    return number[:_SHOWN_LENGTH] if isinstance(number, str) else None


def _parse(row: BulkRow) -> NumberImport | ApiError:
    """Return what a row asks for, or what is wrong with it."""
    try:
        return NumberImport.model_validate(row)
    except ValidationError as error:
        return as_api_error(_in_body(error))


def _in_body(error: ValidationError) -> RequestValidationError:
    return RequestValidationError([{**problem, "loc": ("body", *problem["loc"])} for problem in error.errors()])


def _check_columns(names: Sequence[str]) -> None:
    if "phone_number" not in names:
        raise InvalidParameterError("The first line names the columns; phone_number is one of them.", field="body")
    for name in names:
        if name not in CSV_COLUMNS or names.count(name) > 1:
            known = ", ".join(CSV_COLUMNS)
            message = f"The columns are these, each at most once: {known}."
            raise InvalidParameterError(message, field="body", provided=name)


def _of_cells(cells: Mapping[str | None, Any]) -> BulkRow:
    """Return the row that a line of CSV means. Cells beyond the columns come as a list; they are refused by name."""
    row: BulkRow = {}
    for name, cell in cells.items():
        if name is None:
            row["(beyond the columns)"] = cell
        elif cell is not None and cell.strip():
            held = row.setdefault("config", {}) if CSV_COLUMNS[name] else row
            held[name] = _whole_number(cell.strip()) if name == "max_duration" else cell.strip()
    return row


def _whole_number(text: str) -> int | str:
    """Return the number, or the text for the row's verdict to refuse."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else text

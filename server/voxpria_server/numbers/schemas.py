"""Bodies of this slice's requests and answers."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec
from pydantic import BaseModel, ConfigDict, Field

from voxpria_server.agents.schemas import Engine, Language
from voxpria_server.kit.answers import Shown
from voxpria_server.kit.changes import Change, Lasting
from voxpria_server.kit.clock import iso
from voxpria_server.kit.db import Row

Status = Literal["provisioning", "active", "inactive"]
Id = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[\x21-\x7e]+$")]

DEFAULT_CONFIG = {"first_message": None, "max_duration": 3600, "language": None}


class NumberConfig(BaseModel):
    """How calls of a number go. What is not sent keeps its value, or its default."""

    model_config = ConfigDict(extra="forbid", strict=True)

    first_message: Annotated[str | None, Field(max_length=1000, description="What the agent says first.")] = None
    max_duration: Annotated[int, Field(ge=1, le=86400, description="Seconds after which a call is ended.")] = 3600
    ring_timeout: Annotated[
        int | None, Field(ge=5, le=300, description="Seconds that a call may ring; default: the trunk's limit.")
    ] = None
    language: Language | None = None
    engine_trunk_id: Annotated[
        Id | None,
        Field(description="On a generic trunk: which trunk of the engine takes the calls, if there are several."),
    ] = None


class NumberImport(BaseModel):
    """Body of POST /phone-numbers/import."""

    model_config = ConfigDict(extra="forbid")

    phone_number: str
    trunk_id: Id
    engine: Engine | None = None
    agent_id: Id | None = None
    config: NumberConfig = NumberConfig()


BulkRow = dict[str, Any]
"""A row of a batch as it was sent: what `NumberImport` takes, judged when its turn comes."""

CSV_COLUMNS: Mapping[str, bool] = {
    "phone_number": False,
    "agent_id": False,
    "trunk_id": False,
    "engine": False,
    "first_message": True,
    "max_duration": True,
    "language": True,
    "engine_trunk_id": True,
}
"""The columns of a batch in CSV; True for those of a number's config."""

MAX_ROWS = 1000


class BulkImport(BaseModel):
    """Body of POST /phone-numbers/bulk-import."""

    model_config = ConfigDict(extra="forbid")

    trunk_id: Annotated[Id | None, Field(description="The trunk of every row that names none itself.")] = None
    engine: Annotated[Engine | None, Field(description="The engine of every row that names none itself.")] = None
    numbers: Annotated[
        list[BulkRow],
        Field(min_length=1, max_length=MAX_ROWS, description="Rows, each as the body of POST /phone-numbers/import."),
    ]
    queue: Annotated[bool, Field(strict=True, description="Import in the background, as the rate limit allows.")] = (
        False
    )
    dry_run: Annotated[bool, Field(strict=True, description="Judge every row, the rate limit aside; import none.")] = (
        False
    )

    def rows(self) -> list[BulkRow]:
        """Return the rows, with what they all share."""
        shared = self.model_dump(include={"trunk_id", "engine"}, exclude_none=True)
        return [{**shared, **row} for row in self.numbers]


BULK_REQUEST_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "application/json": {"schema": BulkImport.model_json_schema()},
        "text/csv": {
            "schema": {"type": "string"},
            "example": "phone_number,agent_id\n+12125551234,agent_def456\n",
        },
    },
}
"""The body in OpenAPI's words: the endpoint reads it by its content type."""


class VerdictError(BaseModel):
    """Why a row was not imported: as in the body of the error that importing it alone would get.

    `code` is `invalid_parameter`, `missing_required_field`, `invalid_phone_number`, `trunk_not_found`,
    `agent_not_found`, `phone_number_exists` or, for a row that may be sent again, `import_limit_exceeded`.
    """

    code: str
    message: str
    details: dict[str, Any]


class Verdict(BaseModel):
    """What came of a row; `row` counts from 1."""

    row: int
    phone_number: str | None = None
    status: Literal["success", "failed", "pending"]
    id: str | None = None
    error: VerdictError | None = None

    @classmethod
    def failed(
        cls, row: int, phone_number: str | None, code: str, message: str, details: Mapping[str, Any]
    ) -> "Verdict":
        """Return the verdict on a row that can't be imported."""
        error = VerdictError(code=code, message=message, details=dict(details))
        return cls(row=row, phone_number=phone_number, status="failed", error=error)


class BulkImported(BaseModel):
    """Answer to POST /phone-numbers/bulk-import; with `dry_run`, what would have been imported."""

    success: bool
    imported: int
    failed: int
    dry_run: bool
    results: list[Verdict]


class BulkProgress(BaseModel):
    """A queued import; `success` is known once it is completed."""

    id: str
    status: Literal["queued", "running", "completed"]
    success: bool | None = None
    total: int
    imported: int
    failed: int
    pending: int
    created_at: str
    completed_at: str | None = None
    results: list[Verdict]


class NumberConfigUpdate(NumberConfig, Change):
    """What to change of how calls of a number go."""


class NumberUpdate(Change):
    """Body of PATCH /phone-numbers/{id}; `config` is merged with what is there."""

    agent_id: Annotated[Id | None, Field(description="Who answers; null for nobody.")] = None
    config: Lasting[NumberConfigUpdate] = None
    status: Annotated[
        Lasting[Literal["active", "inactive"]],
        Field(
            description="`inactive` switches the number off: its calls are refused with 480, and provisioning its trunk"
            " anew leaves it so. `active` switches it on again: it is provisioned, and `number.provisioned` follows."
        ),
    ] = None


class Capabilities(BaseModel):
    """What can be done with a number, as trunk and engine allow."""

    inbound: bool
    outbound: bool
    campaigns: bool


class FullCapabilities(Capabilities):
    """The same, with what a number's own page shows besides."""

    recordings: bool


class Stats(BaseModel):
    """Sums over the number's call log."""

    total_calls: int
    total_minutes: float
    last_call_at: str | None


class NumberHead(BaseModel):
    """A number as import answers with it."""

    id: str
    number: str
    trunk_id: str
    engine: Engine | None
    status: Status
    status_reason: str | None = Field(
        description="Why the number is not active; of an active one, what its owner should know all the same."
    )
    agent_id: str | None
    created_at: str


class NumberListed(NumberHead):
    """A number in a list."""

    needs_reprovision: bool
    capabilities: Capabilities


class Number(NumberHead):
    """A number in full."""

    trunk_name: str
    agent_name: str | None
    needs_reprovision: bool
    config: Annotated[dict[str, Any], Shown(NumberConfig)]
    capabilities: FullCapabilities
    stats: Stats
    provisioned_at: str | None
    updated_at: str


class NumberUpdated(BaseModel):
    """A number as PATCH answers with it."""

    id: str
    number: str
    status: Status
    agent_id: str | None
    config: Annotated[dict[str, Any], Shown(NumberConfig)]
    needs_reprovision: bool
    updated_at: str


class Provisioned(BaseModel):
    """Answer to POST /phone-numbers/{id}/provision; still `provisioning` with 202."""

    success: Literal[True] = True
    status: Status
    provisioned_at: str | None


class Reprovisioned(BaseModel):
    """Answer to POST /sip/trunks/{id}/reprovision-all; `provisioning` counts those that still go on (202)."""

    success: bool
    total_numbers: int
    provisioned: int
    failed: int
    provisioning: int


def bulk_imported(verdicts: Sequence[Verdict], *, dry_run: bool) -> BulkImported:
    """Return what a bulk import answers."""
    failed = sum(verdict.status == "failed" for verdict in verdicts)
    return BulkImported(
        success=failed == 0,
        imported=len(verdicts) - failed,
        failed=failed,
        dry_run=dry_run,
        results=list(verdicts),
    )


def bulk_progress(found: Row, rows: Sequence[Row]) -> BulkProgress:
    """Return how far a queued import is."""
    results = [
        Verdict(row=row.position, phone_number=row.phone_number, status=row.status, id=row.number_id, error=row.error)
        for row in rows
    ]
    count = Counter(verdict.status for verdict in results)
    is_completed = found.completed_at is not None
    return BulkProgress(
        id=found.id,
        status="completed" if is_completed else "queued" if count["pending"] == len(rows) else "running",
        success=count["failed"] == 0 if is_completed else None,
        total=len(rows),
        imported=count["success"],
        failed=count["failed"],
        pending=count["pending"],
        created_at=iso(found.created_at),
        completed_at=iso(found.completed_at) if is_completed else None,
        results=results,
    )


def head(number: Mapping[str, Any]) -> NumberHead:
    """Return what import answers."""
    return NumberHead(**_head(number))


def listed(row: dict[str, Any]) -> dict[str, Any]:
    """Make of a row of `queries.list_page` a line of the list as `NumberListed` has it, for msgspec to encode."""
    row["capabilities"] = _capabilities(row.pop("way"))
    return row


def updated(row: Row) -> NumberUpdated:
    """Return what PATCH answers."""
    names = ("id", "status", "agent_id", "needs_reprovision")
    return NumberUpdated(
        **{name: getattr(row, name) for name in names},
        number=row.e164,
        config=_shown(row.config),
        updated_at=iso(row.updated_at),
    )


def full(row: Mapping[str, Any], agent_name: str | None) -> dict[str, Any]:
    """Return a number with its trunk's and agent's names and its sums as `Number` has it, for msgspec to encode."""
    return {
        **_head(row),
        "trunk_name": row["trunk_name"],
        "agent_name": agent_name,
        "needs_reprovision": row["needs_reprovision"],
        "config": _shown(msgspec.json.decode(row["config"])),
        "capabilities": {**_capabilities(row["way"]), "recordings": bool(row["is_recorded"])},
        "stats": {
            "total_calls": row["total_calls"] or 0,
            "total_minutes": round((row["talk_seconds"] or 0) / 60, 1),
            "last_call_at": iso(row["last_call_at"]) if row["last_call_at"] else None,
        },
        "provisioned_at": iso(row["provisioned_at"]) if row["provisioned_at"] else None,
        "updated_at": iso(row["updated_at"]),
    }


def provisioned(row: Row) -> Provisioned:
    """Return what provisioning answers."""
    return Provisioned(status=row.status, provisioned_at=iso(row.provisioned_at) if row.provisioned_at else None)


def _head(row: Mapping[str, Any]) -> dict[str, Any]:
    names = ("id", "trunk_id", "engine", "status", "status_reason", "agent_id")
    return {**{name: row[name] for name in names}, "number": row["e164"], "created_at": iso(row["created_at"])}


def _capabilities(way: str | None) -> dict[str, bool]:
    """Return what a number's way allows (as `queries` has it); a plan without SIP shows no number at all.

    Inbound takes a trunk of the number's engine to lead to; outbound a carrier's trunk besides, to go out through.
    Campaigns are not built yet.
    """
    return {"inbound": way is not None, "outbound": way == "other", "campaigns": False}


def _shown(config: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in config.items() if name in DEFAULT_CONFIG or value is not None}

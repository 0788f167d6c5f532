"""Bodies of this slice's requests and answers."""

import ipaddress
from collections.abc import Mapping
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import msgspec
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from voxpria_server.kit.changes import Change, Lasting
from voxpria_server.kit.clock import iso, utc_now
from voxpria_server.kit.dates import StartDate
from voxpria_server.kit.db import Row

EventType = Literal["call.started", "call.ended", "call.failed", "number.provisioned", "trunk.updated"]


def _checked_url(url: str) -> str:
    if not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError("a URL is printable ASCII without spaces")
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.port == 0:
        raise ValueError("a URL begins with https:// or http:// and names a host")
    if _is_odd_address(parts.hostname):
        raise ValueError("an IP address is written in full")
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise ValueError("a webhook's URL holds no user name, password or fragment")
    return url


def _is_odd_address(host: str) -> bool:
    """Tell whether a host would be read as an IPv4 address, though it is not written as one (WHATWG URL, 3.5)."""
    last = host.rstrip(".").rpartition(".")[2]
    if not (last.isdigit() or last.startswith("0x")):
        return False
    try:
        ipaddress.IPv4Address(host)
    except ValueError:
        return True
    return False


def _without_repetition(events: list[EventType]) -> list[EventType]:
    return list(dict.fromkeys(events))


Url = Annotated[str, Field(min_length=8, max_length=2048), AfterValidator(_checked_url)]
Events = Annotated[list[EventType], Field(min_length=1, max_length=20), AfterValidator(_without_repetition)]
Secret = Annotated[str, Field(min_length=1, max_length=256)]
NewSecret = Annotated[Secret | None, Field(description="Key of the signatures. Default: a new one.")]


class WebhookCreate(BaseModel):
    """Body of POST /webhooks."""

    model_config = ConfigDict(extra="forbid")

    url: Url
    events: Events
    secret: NewSecret = None


class WebhookUpdate(Change):
    """Body of PATCH /webhooks/{id}."""

    url: Lasting[Url] = None
    events: Lasting[Events] = None
    secret: Annotated[
        Lasting[Secret],
        Field(description="Key of the signatures from now on; `roll-secret` keeps the one before it for a day."),
    ] = None
    status: Lasting[Literal["active", "disabled"]] = None


class SecretRoll(BaseModel):
    """Body of POST /webhooks/{id}/roll-secret."""

    model_config = ConfigDict(extra="forbid")

    secret: NewSecret = None


class Recovery(BaseModel):
    """Body of POST /webhooks/{id}/recover."""

    model_config = ConfigDict(extra="forbid")

    since: StartDate


class Recovering(BaseModel):
    """What is being sent again."""

    webhook_id: str
    since: str
    events: int = Field(description="How many events there were that had never reached the webhook.")


class Webhook(BaseModel):
    """A webhook."""

    id: str
    url: str
    events: list[str]
    status: Literal["active", "disabled"]
    disabled_at: str | None
    disabled_reason: str | None
    failing_since: str | None = Field(description="The first failure after the last success; after 5 days: disabled.")
    former_secret_expires_at: str | None = Field(description="Until then former secrets sign deliveries too.")
    created_at: str
    updated_at: str


class NewWebhook(Webhook):
    """A webhook just made; its secret is shown this once, and only if we made it."""

    secret: str | None = Field(default=None, exclude_if=lambda secret: secret is None)


class TestEvent(BaseModel):
    """Body of POST /webhooks/{id}/test."""

    model_config = ConfigDict(extra="forbid")

    event: EventType | None = Field(default=None, description="Default: the first that the webhook is for.")


class Attempt(BaseModel):
    """One attempt of a delivery."""

    number: int
    at: str
    duration_ms: int
    status_code: int | None
    error: str | None
    response: str | None = Field(description="The start of the answer's body.")


class Delivery(BaseModel):
    """One event on its way to one webhook."""

    id: str
    webhook_id: str
    event_id: str
    event: str
    status: Literal["pending", "succeeded", "failed"]
    attempts: list[Attempt]
    next_attempt_at: str | None
    created_at: str


class Event(BaseModel):
    """Something that happened; the first three fields are what webhooks get."""

    event: str
    timestamp: str
    data: dict[str, Any]
    id: str


def render(row: Row) -> Webhook:
    """Return the webhook of a row."""
    return Webhook(**_fields(row))


def render_new(row: Row, secret: str | None) -> NewWebhook:
    """Return the webhook of a row, with the secret that we made for it."""
    return NewWebhook(**_fields(row), secret=secret)


def render_delivery(row: Row) -> Delivery:
    """Return the delivery of a row, which has not been attempted."""
    return Delivery(**_delivery(row._asdict()), attempts=[])


def shown_delivery(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a delivery with its attempts as `Delivery` has it, for msgspec to encode."""
    return {**_delivery(row), "attempts": msgspec.Raw(row["attempts"].encode())}


def _delivery(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **{name: row[name] for name in ("id", "webhook_id", "event_id", "status")},
        "event": row["type"],
        "next_attempt_at": iso(row["next_attempt_at"]) if row["next_attempt_at"] else None,
        "created_at": iso(row["created_at"]),
    }


def _fields(row: Row) -> dict[str, Any]:
    fields = {name: getattr(row, name) for name in ("id", "url", "events", "status", "disabled_reason")}
    expires_at = next(iter(row.former_secrets_expire_at), None)
    return {
        **fields,
        "disabled_at": iso(row.disabled_at) if row.disabled_at else None,
        "failing_since": iso(row.failing_since) if row.failing_since else None,
        "former_secret_expires_at": iso(expires_at) if expires_at and expires_at > utc_now() else None,
        "created_at": iso(row.created_at),
        "updated_at": iso(row.updated_at),
    }

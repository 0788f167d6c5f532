"""Every error that the API answers with, and the one place that renders them.

ApiError                       status, code, message, details
├── InvalidParameterError      400 invalid_parameter (details.field, details.provided)
│   ├── MissingFieldError      400 missing_required_field
│   ├── InvalidNumberError     400 invalid_phone_number
│   └── InvalidCredentialsError 400 invalid_credentials
├── UnauthorizedError          401 api_key_missing | invalid_api_key | invalid_webhook_signature
├── ForbiddenError             403 insufficient_permissions | feature_not_enabled
├── NotFoundError              404 not_found | trunk_not_found | phone_not_found | agent_not_found | call_not_found | …
├── MethodNotAllowedError      405 method_not_allowed
├── TooLargeError              413 payload_too_large
├── ConflictError              409 trunk_name_exists | phone_number_exists | trunk_has_active_numbers | agent_in_use | …
├── LimitExceededError         429 rate_limit_exceeded | import_limit_exceeded, with Retry-After
├── RangeNotSatisfiableError   416 range_not_satisfiable
├── ProvisioningFailedError    500 provisioning_failed (details.reason: the provider's)
├── ServerError                500 server_error
└── UnavailableError           503 server_error, with Retry-After

Anything else that is raised is a bug and answers 500 server_error, its trace in the log only.

`CODES` says what each code means; a route names those of its own with `responses=raises(…)`, and the OpenAPI
document and the reference are made of both. Tests compare them with what is raised.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import asyncpg
import sqlalchemy as sa
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from voxpria_server.kit.db import DatabaseUnavailableError
from voxpria_server.kit.ending import StoppedError
from voxpria_server.kit.logs import get_logger
from voxpria_server.kit.routes import NUL, UnkeepableError, methods_at

_log = get_logger(__name__)
_RETRY_AFTER_SECONDS = 2
_PROVIDED_LENGTH = 200
_UNKEEPABLE_TEXT = frozenset({"22021", "22P05"})
_EXACT_INTEGER = 2**53


@dataclass(frozen=True)
class Code:
    """What an error code means: for the status it comes with, and what to do about it."""

    status: int
    meaning: str
    remedy: str
    details: Mapping[str, Any] = field(default_factory=dict)
    """An example of what `details` holds."""


CODES: Mapping[str, Code] = {
    "invalid_parameter": Code(
        400,
        "A field or parameter is unknown, of the wrong type, or out of its range; or the body is no JSON.",
        "`details.field` names it, `details.provided` repeats what came, unless it could be a secret.",
        {"field": "per_page", "provided": "500"},
    ),
    "missing_required_field": Code(
        400, "A required field was not sent.", "`details.field` names it.", {"field": "trunk_id"}
    ),
    "invalid_phone_number": Code(
        400,
        "Not a phone number in E.164 form, or not possible in its country.",
        "Send `+`, country code and number.",
        {"field": "phone_number", "provided": "2125551234"},
    ),
    "invalid_credentials": Code(
        400,
        "The SIP server on the other side refuses the trunk's credentials.",
        "Check user name and password there.",
        {"field": "credentials"},
    ),
    "api_key_missing": Code(401, "No API key was sent.", "Send `Authorization: Bearer YOUR_API_KEY`."),
    "invalid_api_key": Code(
        401, "The API key is unknown, revoked or expired, or may not be used here.", "Use another key."
    ),
    "invalid_webhook_signature": Code(
        401, "A provider's webhook is not signed with its secret.", "Provision the trunk anew."
    ),
    "invalid_edge_token": Code(401, "Not the edges' token.", "Only our own edges use these paths."),
    "insufficient_permissions": Code(
        403,
        "The API key lacks a scope that this takes.",
        "`details.required` names it; use a key that has it.",
        {"required": "trunks:write"},
    ),
    "feature_not_enabled": Code(403, "The account's plan is without SIP.", "Ask whoever runs this server for it."),
    "invalid_signature": Code(403, "The link's signature is not valid.", "Use the link as the call gives it."),
    "link_expired": Code(403, "The link worked for a while only.", "Get the call again for a new one."),
    "not_found": Code(404, "There is nothing at this path.", "Compare the path with this reference."),
    "trunk_not_found": Code(404, "No trunk of this account and mode has this id.", "List the trunks."),
    "phone_not_found": Code(404, "No phone number of this account and mode has this id.", "List the numbers."),
    "agent_not_found": Code(404, "No agent of this account and mode has this id.", "List the agents."),
    "call_not_found": Code(404, "No call of this account and mode has this id.", "List the calls."),
    "recording_not_found": Code(404, "The call has no recording.", "Look at the call's `recording_url`."),
    "trace_not_found": Code(404, "No SIP messages of the call are kept.", "They come with its answer and its end."),
    "webhook_not_found": Code(404, "No webhook of this account and mode has this id.", "List the webhooks."),
    "event_not_found": Code(
        404, "No event of this account and mode has this id, or it is older than 30 days.", "List the events."
    ),
    "delivery_not_found": Code(404, "The webhook has no delivery with this id.", "List the webhook's deliveries."),
    "import_not_found": Code(
        404, "No queued import of this account and mode has this id.", "Keep the id of the answer."
    ),
    "account_not_found": Code(404, "There is no such account.", "Only the operator's command says so."),
    "plan_not_found": Code(404, "There is no such plan.", "Only the operator's command says so."),
    "key_not_found": Code(404, "There is no such API key.", "Only the operator's command says so."),
    "method_not_allowed": Code(
        405, "The path is there, but not for this method.", "The `Allow` header names those that it takes."
    ),
    "idempotency_conflict": Code(
        409,
        "The idempotency key came with another body before, or its first request is still under way.",
        "Use a new key for another request; with `Retry-After`, ask again.",
        {"field": "Idempotency-Key", "provided": "8e03978e-40d5-43e8-bc93-6894a57f9324"},
    ),
    "trunk_name_exists": Code(
        409, "Another trunk has this name.", "Choose another name.", {"field": "name", "provided": "My carrier"}
    ),
    "phone_number_exists": Code(
        409,
        "The number is imported already.",
        "Change it instead, or delete it first.",
        {"field": "phone_number", "provided": "+12125551234"},
    ),
    "trunk_has_active_numbers": Code(
        409, "The trunk has active numbers.", "Remove them first, or delete with `?force=true`."
    ),
    "agent_in_use": Code(
        409, "Phone numbers are answered by this agent.", "Change them, or delete with `?force=true`."
    ),
    "number_not_in_service": Code(
        409,
        "The number is not active, or has no trunk of its engine.",
        "Provision it, or mend what its `status_reason` says.",
        {"phone_number": "+15555551234", "status": "provisioning"},
    ),
    "call_is_over": Code(
        409,
        "The call has ended already, and not through the API.",
        "Nothing is left to do: `details` say how it ended.",
        {"status": "completed", "ended_by": "caller"},
    ),
    "member_exists": Code(409, "The account has this member already.", "Only the operator's command says so."),
    "key_is_over": Code(409, "The API key is revoked or expired.", "Only the operator's command says so."),
    "webhook_disabled": Code(409, "The webhook is disabled.", "Set its `status` to `active` first."),
    "secret_limit_reached": Code(
        409,
        "As many former secrets of the webhook are valid as may be.",
        "Wait until `details.expires_at`, or PATCH `secret`, which ends them all at once.",
    ),
    "webhook_limit_reached": Code(409, "The account has as many webhooks as it may.", "Delete one first."),
    "payload_too_large": Code(413, "The body has more bytes than are taken.", "Send less at once."),
    "rate_limit_exceeded": Code(
        429,
        "The account has used up its requests of this hour.",
        "Wait until `X-RateLimit-Reset`; `Retry-After` says how long.",
        {"limit": 1000, "window_seconds": 3600},
    ),
    "import_limit_exceeded": Code(
        429,
        "The account has used up its imports of this minute.",
        "Wait until `X-RateLimit-Reset`; `Retry-After` says how long.",
        {"limit": 10, "window_seconds": 60},
    ),
    "range_not_satisfiable": Code(
        416, "The range that was asked for lies outside of what is there.", "`Content-Range` says how much there is."
    ),
    "provisioning_failed": Code(
        500,
        "The provider refused, or could not be asked.",
        "`details.reason` is what the provider said.",
        {"provider": "elevenlabs", "reason": "The phone number is not on this account."},
    ),
    "server_error": Code(500, "Something is wrong on our side.", "Try again; tell us the `request_id` if it stays."),
}
"""Every code that an answer may carry. `server_error` comes with 503 too, while a part is away for a moment."""


def raises(*codes: str) -> dict[int | str, dict[str, Any]]:
    """Return what a route declares as its `responses`: the errors that are its own, by their codes.

    What every route may answer (authentication, bad input, trouble of ours) is added where the document is made.
    """
    responses: dict[int | str, dict[str, Any]] = {}
    for code in codes:
        responses.setdefault(CODES[code].status, {"x-codes": []})["x-codes"].append(code)
    return responses


class ApiError(Exception):
    """An answer other than success: carries its own verdict."""

    status: int = 500
    code: str = "server_error"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        details: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or type(self).code
        self.details = dict(details or {})
        self.headers = dict(headers or {})


class InvalidParameterError(ApiError):
    """A field or parameter that does not fit. `provided` must not be a secret."""

    status, code = 400, "invalid_parameter"

    def __init__(self, message: str, *, field: str, provided: object = None) -> None:
        super().__init__(message, details={"field": field} | _provided(provided))


class MissingFieldError(InvalidParameterError):
    """A required field is not there."""

    code = "missing_required_field"


class InvalidNumberError(InvalidParameterError):
    """Not a phone number in E.164 form."""

    code = "invalid_phone_number"


class InvalidCredentialsError(InvalidParameterError):
    """Credentials that the server on the other side refuses."""

    code = "invalid_credentials"


class UnauthorizedError(ApiError):
    """No key, or one that is not valid."""

    status, code = 401, "invalid_api_key"


class ForbiddenError(ApiError):
    """A valid key that may not do this."""

    status, code = 403, "insufficient_permissions"


class NotFoundError(ApiError):
    """There is no such thing in this account and mode."""

    status, code = 404, "not_found"


class MethodNotAllowedError(ApiError):
    """The path is there, the method is not."""

    status, code = 405, "method_not_allowed"


class ConflictError(ApiError):
    """At odds with what is there."""

    status, code = 409, "conflict"


class TooLargeError(ApiError):
    """A body of more bytes than are taken."""

    status, code = 413, "payload_too_large"


class LimitExceededError(ApiError):
    """More than is allowed in a time."""

    status, code = 429, "rate_limit_exceeded"


class RangeNotSatisfiableError(ApiError):
    """The range that was asked for lies outside of what is there (RFC 9110 section 15.5.17)."""

    status, code = 416, "range_not_satisfiable"

    def __init__(self, size: int) -> None:
        super().__init__(
            f"The range lies outside of the {size} bytes that are there.",
            details={"field": "range"},
            headers={"Content-Range": f"bytes */{size}"},
        )


class ProvisioningFailedError(ApiError):
    """The provider refused, or could not be asked."""

    status, code = 500, "provisioning_failed"


class ServerError(ApiError):
    """Something is wrong on our side."""


class UnavailableError(ServerError):
    """A part that is needed is away for now."""

    status = 503

    def __init__(self, message: str) -> None:
        super().__init__(message, headers={"Retry-After": str(_RETRY_AFTER_SECONDS)})


RENDERED = (
    *(ApiError, HTTPException, RequestValidationError),
    *(DatabaseUnavailableError, sa.exc.DBAPIError, asyncpg.PostgresError),
)
"""What a request may raise; anything else is a fault of the program."""


def install(app: FastAPI) -> None:
    """Have every error of `app` rendered here."""
    for kind in RENDERED:
        app.add_exception_handler(kind, answer)
    app.add_exception_handler(Exception, _answer_any)


def render(error: ApiError, request_id: str, docs_url: str) -> JSONResponse:
    """Return the answer for `error`; `docs_url` is where the reference says more of its code."""
    body = {
        "code": error.code,
        "message": error.message,
        "details": error.details,
        "doc_url": f"{docs_url}#error-{error.code}",
        "request_id": request_id,
    }
    return JSONResponse({"error": body}, status_code=error.status, headers=error.headers)


def render_any(error: Exception, request_id: str, docs_url: str) -> JSONResponse:
    """Return the answer for any exception."""
    return render(as_api_error(error), request_id, docs_url)


async def answer(request: Request, error: Exception) -> JSONResponse:
    """Return the answer for an error that a request raised; log it, if it is ours."""
    api_error = as_api_error(error)
    if api_error.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        cause = str(error) if isinstance(error, DatabaseUnavailableError) else type(error).__name__  # how it is away
        _log.warning("request failed", code=api_error.code, status=api_error.status, cause=cause)
    if api_error.status == HTTPStatus.METHOD_NOT_ALLOWED:
        api_error.headers["Allow"] = methods_at(request.app, request.scope["path"])
    return render(api_error, request.state.request_id, request.app.state.settings.docs_url)


async def _answer_any(request: Request, error: Exception) -> JSONResponse:
    """Return the answer for an error that nobody foresaw; who passes it on logs it."""
    return render_any(error, request.state.request_id, request.app.state.settings.docs_url)


def as_api_error(error: Exception) -> ApiError:
    """Return the verdict on any exception."""
    match error:
        case ApiError():
            return error
        case RequestValidationError():
            return _invalid(error.errors()[0])
        case HTTPException():
            return _http_error(error)
        case StoppedError() | DatabaseUnavailableError():
            is_stop = isinstance(error, StoppedError)
            why = "The server is being stopped" if is_stop else "The database can't be reached at the moment"
            return UnavailableError(f"{why}; try again shortly.")
        case sa.exc.DBAPIError() | asyncpg.PostgresError() if _sqlstate(error) in _UNKEEPABLE_TEXT:
            return unkeepable("body")
        case _:
            return ServerError("Something went wrong on our side; the request id helps us find it.")


def unkeepable(field: str, what: str = NUL) -> InvalidParameterError:
    """Return the verdict on what can't be kept: a text with a NUL, unless `what` says another."""
    return InvalidParameterError(f"{field} holds {what}.", field=field)


def _sqlstate(error: Exception) -> str | None:
    return getattr(getattr(error, "orig", error), "sqlstate", None)


def _http_error(error: HTTPException) -> ApiError:
    if isinstance(error, UnkeepableError):
        return unkeepable(error.field, error.what)
    match error.status_code:
        case HTTPStatus.NOT_FOUND:
            return NotFoundError("There is nothing at this path.")
        case HTTPStatus.METHOD_NOT_ALLOWED:
            return MethodNotAllowedError("This path does not take this method.")
        case HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            return TooLargeError(str(error.detail))
        case status if status < HTTPStatus.INTERNAL_SERVER_ERROR:
            return InvalidParameterError(str(error.detail), field="body")
        case _:
            return ServerError("Something went wrong on our side; the request id helps us find it.")


def _invalid(problem: Mapping[str, Any]) -> ApiError:
    """Turn the first finding of the validation into our words."""
    where, *path = [str(part) for part in problem["loc"]] or ["body"]
    field = ".".join(part for part in path if not part.startswith("function-") and part != "[key]") or where
    match problem["type"]:
        case "missing":
            return MissingFieldError(f"{field} is required.", field=field)
        case "json_invalid":
            return InvalidParameterError(f"The body is not valid JSON: {problem['ctx']['error']}.", field="body")
        case "model_attributes_type" | "model_type" if field == "body":
            return InvalidParameterError("The body is a JSON object, sent as application/json.", field="body")
        case "extra_forbidden":
            return InvalidParameterError(f"{field} is not a known field.", field=field)
        case _:
            message = str(problem["msg"]).removeprefix("Value error, ")
            return InvalidParameterError(f"{field}: {message}", field=field, provided=_echo(field, problem))


def _echo(field: str, problem: Mapping[str, Any]) -> object:
    """Return what was sent, unless it may hold a secret."""
    is_secret = any(word in field for word in ("credentials", "secret", "password", "api_key"))
    return None if is_secret else problem.get("input")


def _provided(value: object) -> dict[str, Any]:
    """Return what came, if it is a plain value that every JSON reader takes."""
    match value:
        case str():
            return {"provided": value[:_PROVIDED_LENGTH].encode("utf-8", "replace").decode()}
        case bool():
            return {"provided": value}
        case int() if abs(value) <= _EXACT_INTEGER:
            return {"provided": value}
        case float() if math.isfinite(value):
            return {"provided": value}
        case _:
            return {}

"""The OpenAPI 3.1 document, made of the routes: what FastAPI knows of them, and what they declare besides.

`python -m voxpria_server.reference.openapi FILE` writes it; `./run openapi` renews the copy in the project's root.
"""

import json
import re
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import Any

from fastapi.dependencies.models import Dependant
from fastapi.openapi.utils import get_openapi
from fastapi.routing import RouteContext, iter_route_contexts

from voxpria_server import api
from voxpria_server.auth.limits import import_allowance
from voxpria_server.auth.service import SCOPES, SIP_AREAS, Permission
from voxpria_server.errors import CODES
from voxpria_server.reference import hooks
from voxpria_server.reference.examples import BY_NAME, REQUESTS, Examples

Json = dict[str, Any]

TAGS = {
    "SIP trunks": "A trunk connects a SIP server, of a carrier or of an AI provider, with its credentials and config.",
    "Phone numbers": "The numbers that calls come in on: imported, provisioned, and answered by an agent.",
    "Agents": "Who answers: a voice agent that lives here or at its provider.",
    "Calls": "What really happened: each call's record, its quality, its recording, and why it went as it did.",
    "Webhooks": "Your own server is told of what happens, signed, and told again until it has taken it.",
}

DESCRIPTION = """
Connect phone numbers to AI voice agents over SIP, and see what became of every call.

**Authentication.** Every request carries an API key: `Authorization: Bearer vox_sk_…`. The key decides the account and
the mode, test or live; data of the two never mix.

**Forms.** Bodies are JSON, `application/json`, in UTF-8, of at most 1 MiB. Times are UTC, `YYYY-MM-DDTHH:MM:SSZ`. Ids
carry their kind as a prefix and sort in time. Unknown fields and unknown query parameters are refused, so that a
misspelt one is noticed. A text holds no NUL character. `HEAD` is answered wherever `GET` is.

**Lists** come newest first, in pages: `page` and `per_page` (1 to 100), with the exact `total`; or `starting_after` an
id, which stays stable while rows are added. A row that was deleted since still marks its place; what is no id of the
list's kind, or of a call that there is not, is refused.

**Limits** count requests an hour and imported numbers a minute, for the account and each mode. `X-RateLimit-Limit`,
`X-RateLimit-Remaining` and `X-RateLimit-Reset` say where they stand; beyond them the answer is 429 with `Retry-After`.

**Doing it once.** A POST with an `Idempotency-Key` is done once, however often it is sent in 24 hours: whoever sends it
again gets the first answer, with `Idempotent-Replayed: true` and the first one's id as `Original-Request`. The same key
with another body is refused. Failures of ours (5xx) and 429 are not kept: send the same again.

**Errors** have one shape: `error.code` to act on, `error.message` to read, `error.details`, `error.doc_url`, where
to read on about the code, and `error.request_id`, which is also in the `X-Request-Id` header of every
answer (of one that comes again, in `Original-Request`).
""".strip()

_HEADERS: Mapping[str, Json] = {
    "X-Request-Id": {
        "description": "The request's id. Name it when you ask for help.",
        "required": True,
        "schema": {"type": "string", "pattern": "^req_[0-9a-z]{26}$"},
    },
    "X-RateLimit-Limit": {
        "description": "How many requests the account may make an hour; where numbers are imported, how many a minute.",
        "schema": {"type": "integer"},
    },
    "X-RateLimit-Remaining": {"description": "How many of them are left.", "schema": {"type": "integer"}},
    "X-RateLimit-Reset": {"description": "When all are there again, in unix seconds.", "schema": {"type": "integer"}},
    "Idempotent-Replayed": {
        "description": "That this is the first answer to the same request, which was not done again.",
        "schema": {"type": "string", "const": "true"},
    },
    "Original-Request": {
        "description": "The id of the request that was answered first, where this is its answer once more.",
        "schema": {"type": "string", "pattern": "^req_[0-9a-z]{26}$"},
    },
    "WWW-Authenticate": {"description": "How to authenticate (RFC 6750).", "schema": {"type": "string"}},
    "Retry-After": {"description": "Seconds to wait before the next try.", "schema": {"type": "integer"}},
    "Content-Range": {"description": "Which bytes these are, of how many.", "schema": {"type": "string"}},
}
_HEADERS_OF_STATUS = {
    401: ("WWW-Authenticate",),
    429: ("Retry-After",),
    503: ("Retry-After",),
    206: ("Content-Range",),
    416: ("Content-Range",),
}

_LIMIT_HEADERS = ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")

_IDEMPOTENCY_KEY: Json = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "Any text of your own, of which the same is sent with the same request again; kept for 24 hours.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]+$"},
    "example": "8e03978e-40d5-43e8-bc93-6894a57f9324",
}

_SECURITY: Json = {
    "type": "http",
    "scheme": "bearer",
    "description": "An API key, `vox_sk_live_…` or `vox_sk_test_…`. Each operation names its scope, one of "
    + ", ".join(f"`{scope}`" for scope in sorted(SCOPES))
    + ".",
}

_ERROR: Json = {
    "type": "object",
    "description": "The body of every error.",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message", "details", "doc_url", "request_id"],
            "properties": {
                "code": {"type": "string", "description": "What happened, for programs."},
                "message": {"type": "string", "description": "What happened, for people."},
                "details": {"type": "object", "description": "More, by code: often `field` and `provided`."},
                "doc_url": {"type": "string", "format": "uri", "description": "Where the reference says more of it."},
                "request_id": {"type": "string", "description": "The same as `X-Request-Id`."},
            },
        }
    },
}

_SIGNATURES = {
    "X-VoxPria-Signature": "The lowercase hex HMAC-SHA256 of the body's bytes, under the webhook's secret.",
    "webhook-id": "The event's id (Standard Webhooks).",
    "webhook-timestamp": "When the attempt was made, in unix seconds (Standard Webhooks).",
    "webhook-signature": "`v1,` and the base64 HMAC-SHA256 of id, timestamp and body (Standard Webhooks); a list"
    " between spaces, by each valid secret.",
}
_OF_FORMER = {
    "X-VoxPria-Signature-Former": "As `X-VoxPria-Signature`, under each former secret that is still valid, newest"
    " first, between spaces; only while there is one.",
}


@cache
def document() -> Json:
    """Return the document. It is the same for the whole life of a process: don't change it."""
    made = get_openapi(
        title="VoxPria",
        version="1",
        summary="Phone numbers, SIP trunks and AI voice agents",
        description=DESCRIPTION,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        tags=[{"name": name, "description": text} for name, text in TAGS.items()],
        routes=api.v1.routes,
        webhooks=hooks.router.routes,
    )
    _drop_titles(made)
    components = made["components"]
    for unused in ("HTTPValidationError", "ValidationError"):
        components["schemas"].pop(unused, None)
    components["schemas"]["Error"] = _ERROR
    components["headers"] = dict(_HEADERS)
    components["securitySchemes"] = {"ApiKey": _SECURITY}
    components["responses"] = {}
    examples = Examples(components["schemas"])
    for route in routes():
        for method in route.methods or ():
            _complete(made["paths"][route.path_format][method.lower()], route, components, examples)
    for event, item in made["webhooks"].items():
        item["post"]["operationId"] = event
        _complete_hook(item["post"], examples)
    return made


def resolve(part: Json) -> Json:
    """Return what a reference within the document stands for; anything else as it is."""
    while "$ref" in part:
        _, section, name = part["$ref"].removeprefix("#/").split("/")
        part = document()["components"][section][name]
    return part


def routes() -> Iterator[RouteContext]:
    """Return every route of the public API, as it is reached."""
    return (route for route in iter_route_contexts(api.v1.routes) if route.include_in_schema)


def scope_of(route: RouteContext) -> str | None:
    """Return the scope that a route takes; None where no key is asked for."""
    return next((call.scope for call in _calls(route.dependant) if isinstance(call, Permission)), None)


def codes_of(route: RouteContext) -> dict[int, list[str]]:
    """Return every error that a route may answer, by status: its own, and those of all."""
    codes = ["invalid_parameter", *_codes_of_input(route), *_codes_of_key(route)]
    for response in route.responses.values():
        codes += response.get("x-codes", ())
    by_status: dict[int, list[str]] = {}
    for code in dict.fromkeys([*codes, "server_error"]):
        by_status.setdefault(CODES[code].status, []).append(code)
    by_status[503] = ["server_error"]
    return dict(sorted(by_status.items()))


def _codes_of_input(route: RouteContext) -> Iterator[str]:
    has_body = route.body_field is not None or "requestBody" in (route.openapi_extra or {})
    if has_body:
        yield "payload_too_large"
    if has_body or any(parameter.field_info.is_required() for parameter in _query(route.dependant)):
        yield "missing_required_field"


def _codes_of_key(route: RouteContext) -> Iterator[str]:
    scope = scope_of(route)
    if scope is None:
        return
    yield from ("api_key_missing", "invalid_api_key", "insufficient_permissions", "rate_limit_exceeded")
    if scope.partition(":")[0] in SIP_AREAS:
        yield "feature_not_enabled"
    if import_allowance in _calls(route.dependant):
        yield "import_limit_exceeded"
    if "POST" in (route.methods or ()):
        yield "idempotency_conflict"


def _calls(dependant: Dependant) -> Iterator[object]:
    yield dependant.call
    for each in dependant.dependencies:
        yield from _calls(each)


def _query(dependant: Dependant) -> Iterator[Any]:
    yield from dependant.query_params
    for each in dependant.dependencies:
        yield from _query(each)


def _complete(operation: Json, route: RouteContext, components: Json, examples: Examples) -> None:
    operation["operationId"] = route.name
    operation["summary"] = re.split(r"[.;:](?:\s|$)", operation["description"])[0]
    scope = scope_of(route)
    operation["security"] = [{"ApiKey": [scope]}] if scope else []
    for parameter in operation.get("parameters", ()):
        _complete_parameter(parameter, examples)
        if parameter["name"] == "starting_after":
            listed = operation["responses"]["200"]["content"]["application/json"]["schema"]
            parameter["example"] = examples.of(listed)["data"][0]["id"]
    is_kept = scope is not None and "POST" in (route.methods or ())
    if is_kept:
        operation.setdefault("parameters", []).append(_IDEMPOTENCY_KEY)
    if "requestBody" in operation:
        _hoist(operation["requestBody"]["content"]["application/json"], components["schemas"])
        named = {name: {"value": value} for name, value in REQUESTS.get(operation["operationId"], {}).items()}
        if named:
            operation["requestBody"]["content"]["application/json"]["examples"] = named
        _give_examples(operation["requestBody"]["content"], examples)
        for media in operation["requestBody"]["content"].values():
            _say_defaults(media["schema"], components)
    responses = {status: value for status, value in operation["responses"].items() if int(status) < 400}
    for status, response in responses.items():
        response.setdefault("description", HTTPStatus(int(status)).phrase)
        response["headers"] = _headers(int(status), is_keyed=scope is not None)
        if is_kept:
            for name in ("Idempotent-Replayed", "Original-Request"):
                response["headers"][name] = {"$ref": f"#/components/headers/{name}"}
        _give_examples(response.get("content", {}), examples)
    for status, codes in codes_of(route).items():
        name = "-".join([str(status), *codes, *(["keyed"] if scope else [])])
        components["responses"].setdefault(name, _error(status, codes, is_keyed=scope is not None))
        responses[str(status)] = {"$ref": f"#/components/responses/{name}"}
    operation["responses"] = responses


def _complete_parameter(parameter: Json, examples: Examples) -> None:
    choices = [choice for choice in parameter["schema"].get("anyOf", ()) if choice != {"type": "null"}]
    if len(choices) == 1:  # no parameter can be sent as null
        del parameter["schema"]["anyOf"]
        parameter["schema"] |= choices[0]
    if "description" in parameter["schema"]:
        parameter["description"] = parameter["schema"].pop("description")
    if parameter["in"] == "path":
        parameter.setdefault("description", f"The id, as `{examples.of({}, parameter['name'])}`.")
    if "default" not in parameter["schema"]:
        parameter.setdefault("example", examples.of(parameter["schema"], parameter["name"]))


def _complete_hook(operation: Json, examples: Examples) -> None:
    """Turn what FastAPI takes for an endpoint of ours into what a receiver gets and may answer."""
    operation["summary"] = operation["description"].removeprefix("Tell that ").rstrip(".").capitalize()
    operation["parameters"] = [
        {"name": name, "in": "header", "required": is_there, "description": text, "schema": {"type": "string"}}
        for texts, is_there in ((_SIGNATURES, True), (_OF_FORMER, False))
        for name, text in texts.items()
    ]
    _give_examples(operation["requestBody"]["content"], examples)
    operation["responses"] = {
        "2XX": {"description": "Taken. Anything else, a redirect too, or 15 s without an answer: it is sent again."}
    }


def _error(status: int, codes: list[str], *, is_keyed: bool) -> Json:
    schema = {
        "allOf": [
            {"$ref": "#/components/schemas/Error"},
            {"properties": {"error": {"properties": {"code": {"enum": codes}}}}},
        ]
    }
    return {
        "description": f"{HTTPStatus(status).phrase}: " + ", ".join(f"`{code}`" for code in codes),
        "headers": _headers(status, is_keyed=is_keyed),
        "content": {"application/json": {"schema": schema, "examples": {code: _error_example(code) for code in codes}}},
    }


def _error_example(code: str) -> Json:
    meaning = CODES[code]
    error = {
        "code": code,
        "message": meaning.meaning,
        "details": dict(meaning.details),
        "doc_url": f"https://api.example.com/docs#error-{code}",
        "request_id": BY_NAME["request_id"],
    }
    return {"summary": f"{meaning.meaning} {meaning.remedy}", "value": {"error": error}}


def _hoist(media: Json, schemas: Json) -> None:
    """Move the definitions that a schema brings with it to where all others are."""
    schema = json.loads(json.dumps(media["schema"]).replace("#/$defs/", "#/components/schemas/"))
    for name, definition in schema.pop("$defs", {}).items():
        schemas.setdefault(name, definition)
    media["schema"] = schema


def _say_defaults(schema: Json, components: Json) -> None:
    """Turn a body's defaults into words: clients made from `default` send it for what nobody set, or ask for it."""
    if "$ref" in schema:
        _say_defaults(components["schemas"][schema["$ref"].rpartition("/")[2]], components)
    for field in schema.get("properties", {}).values():
        default = field.pop("default", None)
        if default not in (None, [], {}):
            words = f"Default: `{json.dumps(default)}`."
            field["description"] = " ".join(filter(None, [field.get("description"), words]))
    within = [*schema.get("properties", {}).values(), *schema.get("anyOf", ()), *schema.get("oneOf", ())]
    for each in [*within, *([schema["items"]] if "items" in schema else [])]:
        _say_defaults(each, components)


def _drop_titles(part: Any) -> None:  # noqa: ANN401  (any JSON)
    """Remove the titles that Pydantic makes of every name: they say nothing new."""
    for key, each in list(part.items() if isinstance(part, dict) else enumerate(part)):
        if key == "title" and isinstance(each, str) and "openapi" not in part and "version" not in part:
            del part[key]
        elif isinstance(each, dict | list):
            _drop_titles(each)


def _headers(status: int, *, is_keyed: bool) -> Json:
    limits = _LIMIT_HEADERS if is_keyed and status != 401 else ()  # who is not known has no limits to be told of
    names = ("X-Request-Id", *limits, *_HEADERS_OF_STATUS.get(status, ()))
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _give_examples(content: Json, examples: Examples) -> None:
    for media_type, media in content.items():
        if media_type == "application/json" and not media.keys() & {"example", "examples"}:
            media["example"] = examples.of(media["schema"])


def dump() -> str:
    """Return the document as the file in the project's root holds it."""
    return json.dumps(document(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(dump())

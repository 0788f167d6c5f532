"""Holds every answer against the OpenAPI document: its status, its headers, its body, and each error's code.

The clients of `conftest.Api` do it with each answer, so whatever any test makes the API say is documented.
"""

import re
from functools import cache

import httpx2
import jsonschema_rs
from voxpria_server.reference.openapi import document, resolve

REQUEST_ID = re.compile(r"req_[0-9a-z]{26}")


@cache
def validator(operation_id: str, status: str) -> jsonschema_rs.Validator | None:
    """Return the validator of an operation's JSON answers; None if they are no JSON."""
    operation = next(each for each in operations().values() if each["operationId"] == operation_id)
    media = resolve(operation["responses"][status]).get("content", {}).get("application/json")
    return media and schema_validator(media["schema"])


def schema_validator(schema: dict) -> jsonschema_rs.Validator:
    return jsonschema_rs.validator_for({**schema, "components": document()["components"]})


@cache
def operations() -> dict[tuple[str, str], dict]:
    return {(path, method): one for path, item in document()["paths"].items() for method, one in item.items()}


@cache
def _patterns() -> list[tuple[re.Pattern, str]]:
    paths = sorted(document()["paths"], key=lambda path: path.count("{"))
    return [(re.compile(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(path))), path) for path in paths]


def operation_at(method: str, path: str) -> dict | None:
    """Return the operation that answers there, if the document has it."""
    method = "get" if method == "HEAD" else method.lower()
    there = (operations().get((template, method)) for pattern, template in _patterns() if pattern.fullmatch(path))
    return next(filter(None, there), None)


def _are_limits_due(name: str, answer: httpx2.Response) -> bool:
    """Tell whether that header is due. A key refused for its address, or never looked up, has no limits."""
    return name.startswith("X-RateLimit") and answer.status_code < 500 and answer.status_code != 403


async def hold_to_it(answer: httpx2.Response) -> None:
    """Fail unless the document says that this answer may come."""
    assert REQUEST_ID.fullmatch(answer.headers["x-request-id"])
    operation = operation_at(answer.request.method, answer.request.url.path)
    if operation is None:
        return
    await answer.aread()
    where = f"{operation['operationId']} answers {answer.status_code} {answer.text[:300]}"
    status = str(answer.status_code)
    assert status in operation["responses"], f"undocumented: {where}"
    documented = resolve(operation["responses"][status])
    missing = [
        name
        for name, header in documented["headers"].items()
        if name not in answer.headers and (resolve(header).get("required") or _are_limits_due(name, answer))
    ]
    assert not missing, f"without {missing}: {where}"
    body = validator(operation["operationId"], status)
    if body is not None and answer.request.method != "HEAD":
        problems = [f"{list(error.instance_path)}: {error.message}" for error in body.iter_errors(answer.json())]
        assert not problems, f"not as documented: {where}: {problems}"

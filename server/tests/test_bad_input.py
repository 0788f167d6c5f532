"""Bad input of every kind, at every endpoint that the OpenAPI document names: the one shape of errors, and no trace."""

import json
import re
from collections.abc import Iterator
from itertools import product

import pytest
from voxpria_server.api import BODY_LIMITS
from voxpria_server.kit.ids import new_id
from voxpria_server.reference.openapi import resolve

from server.tests.contract import operation_at, operations

DEEP = b'{"name":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
BODIES = {
    "no body": b"",
    "no JSON": b"{",
    "an array": b"[]",
    "a string": b'"text"',
    "a number": b"7",
    "null": b"null",
    "deep": DEEP,
    "deep objects": b'{"config":' * 5_000 + b"1" + b"}" * 5_000,
    "bad UTF-8": b'{"name": "\xff\xfe"}',
    "UTF-16": '{"name": "x"}'.encode("utf-16"),
    "NaN": b'{"name": NaN}',
    "Infinity": b'{"name": -Infinity}',
    "a lone surrogate": b'{"name": "\\ud800"}',
    "an unknown field": b'{"surprise": 1}',
    "a huge number": b'{"name": 1' + b"0" * 5_000 + b"}",
    "a huge float": b'{"name": 1e999}',
    "trailing": b"{} {}",
    "10 MB": b'{"name": "' + b"x" * 10_000_000 + b'"}',
}
WRONG_TYPES = (True, 0, -1, 10**30, 1.5, "", "\x00", "x" * 100_000, [], [[]], {}, {"": None}, None)
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND")
OPERATIONS = sorted(operations())
WITH_BODY = [key for key in OPERATIONS if "requestBody" in operations()[key]]


def at(path: str, value: str = "x") -> str:
    return re.sub(r"\{\w+\}", value, path)


def example_of(path: str, method: str) -> dict | None:
    media = operations()[path, method].get("requestBody", {}).get("content", {}).get("application/json")
    if media is None:
        return None
    return media["example"] if "example" in media else next(iter(media["examples"].values()))["value"]


def product_of_fields() -> Iterator[tuple[tuple[str, str], str, object]]:
    for key in WITH_BODY:
        for field in example_of(*key):
            for value in WRONG_TYPES:
                yield key, field, value


def is_refused(answer, *statuses: int) -> None:
    """Fail unless the answer is an error in its documented shape (the client has checked it, too)."""
    assert answer.status_code in statuses, answer.text[:500]
    error = answer.json()["error"]
    assert error.keys() == {"code", "message", "details", "doc_url", "request_id"}
    assert error["doc_url"].endswith(f"/docs#error-{error['code']}")
    assert error["request_id"] == answer.headers["x-request-id"]
    assert error["message"]
    assert not re.search(r"Traceback|File \"|\.py|sqlalchemy|asyncpg|pydantic", answer.text), answer.text


async def test_bodies(client):
    for (path, method), (name, body) in product(WITH_BODY, BODIES.items()):
        answer = await client.request(
            method.upper(), at(path), content=body, headers={"Content-Type": "application/json"}
        )
        is_long = name == "10 MB" and at(path) not in BODY_LIMITS
        is_refused(answer, 413 if is_long else 400, *([404] if name in {"no body", "null"} else []))


@pytest.mark.parametrize(
    ("content", "content_type", "message"),
    [
        (b"not json", "application/json", "The body is not valid JSON: expected ident at line 1 column 2."),
        (b'{"name": "x",}', "application/json", "The body is not valid JSON: trailing comma at line 1 column 14."),
        (b"[]", "application/json", "The body is a JSON object, sent as application/json."),
        (b'{"name": "x"}', "application/x-www-form-urlencoded", "The body is a JSON object, sent as application/json."),
    ],
)
async def test_what_is_wrong_with_a_body_is_said(client, content, content_type, message):
    for path in ("/v1/sip/trunks", "/v1/agents"):
        answer = await client.post(path, content=content, headers={"Content-Type": content_type})
        is_refused(answer, 400)
        error = answer.json()["error"]
        assert (error["code"], error["message"], error["details"]) == ("invalid_parameter", message, {"field": "body"})


async def test_a_name_has_something_to_be_read(client):
    for path in ("/v1/sip/trunks", "/v1/agents"):
        for name in ("", " ", "\u2003\n"):
            answer = await client.post(path, json=example_of(path, "post") | {"name": name})
            is_refused(answer, 400)
            assert answer.json()["error"]["details"] == {"field": "name", "provided": name}


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/v1/agents", {"name": "a\0b", "engine": "openai"}, "name"),
        ("/v1/agents", {"name": "a", "engine": "openai", "instructions": "\0"}, "instructions"),
        ("/v1/agents", {"name": "a", "engine": "openai", "\0": 1}, "\0"),
        ("/v1/sip/trunks", {"name": "a", "provider": "generic", "config": {"server": "\0"}}, "config.server"),
        ("/v1/webhooks", {"url": "https://example.com/", "events": ["call.ended", "\0"]}, "events.1"),
        ("/v1/agents", "\0", "body"),
        ("/v1/phone-numbers/bulk-import", {"numbers": [{}, {"agent_id": "\0"}], "queue": True}, "numbers.1.agent_id"),
    ],
)
async def test_a_nul_is_refused_where_it_stands(client, path, body, field):
    answer = await client.post(path, json=body)
    is_refused(answer, 400)
    error = answer.json()["error"]
    assert (error["code"], error["details"]) == ("invalid_parameter", {"field": field})


async def test_what_only_looks_like_a_nul_is_kept(client):
    name = r"\u0000"
    made = await client.post("/v1/agents", json={"name": name, "engine": "openai"})
    assert made.json()["name"] == name


@pytest.mark.parametrize("number", ["1e400", "-1E+309", f"1{'0' * 309}", f"-1{'0' * 400}", f"{'9' * 250}e99"])
async def test_a_number_beyond_a_double_is_refused_where_it_stands(client, number):
    """The queue keeps rows as they came, and a call its metadata: it would be null, or no JSON, from then on."""
    bodies = {
        "numbers.0.config.max_duration": '{"numbers": [{"config": {"max_duration": NUMBER}}], "queue": true}',
        "metadata.k": '{"from": "+15555551234", "to": "+13035550199", "metadata": {"k": NUMBER}}',
    }
    for (field, body), path in zip(bodies.items(), ("/v1/phone-numbers/bulk-import", "/v1/calls"), strict=True):
        content, headers = body.replace("NUMBER", number), {"Content-Type": "application/json"}
        answer = await client.post(path, content=content, headers=headers)
        is_refused(answer, 400)
        error = answer.json()["error"]
        assert error["details"] == {"field": field}
        assert error["message"] == f"{field} holds a number that is out of range."


async def test_metadata_says_what_a_value_may_be(client):
    asked = {"from": "+15555551234", "to": "+13035550199"}
    for value in ([], {}, "x" * 501):
        answer = await client.post("/v1/calls", json=asked | {"metadata": {"k": value}})
        is_refused(answer, 400)
        error = answer.json()["error"]
        wanted = "metadata.k: a text of at most 500 characters, a number, true, false or null"
        assert (error["message"], error["details"]["field"]) == (wanted, "metadata.k")
    answer = await client.post("/v1/calls", json=asked | {"metadata": {"a b": 1}})
    assert answer.json()["error"]["details"] == {"field": "metadata.a b", "provided": "a b"}


async def test_every_list_refuses_to_start_after_what_is_no_row_of_it(client):
    ids = {"trunk": new_id("trunk"), "phone": new_id("phone"), "agent": new_id("agent"), "call": new_id("call")}
    ids |= {"webhook": new_id("webhook"), "evt": new_id("evt"), "dlv": new_id("dlv"), "key": new_id("key")}
    made_up = {"", "x", "null", "0" * 64, *(f"{kind}_{'0' * 26}" for kind in ids), *(f"{kind}_1" for kind in ids)}
    webhook = await client.post("/v1/webhooks", json={"url": "http://127.0.0.1:9/", "events": ["call.ended"]})
    listed = {}
    for path, method in OPERATIONS:
        if "starting_after" not in {each["name"] for each in operations()[path, method].get("parameters", ())}:
            continue
        here = path.format(webhook_id=webhook.json()["id"])
        for value in made_up:
            answer = await client.get(here, params={"starting_after": value})
            is_refused(answer, 400)
            error = answer.json()["error"]
            assert (error["code"], error["details"]["field"]) == ("invalid_parameter", "starting_after")
        answers = {kind: await client.get(here, params={"starting_after": one}) for kind, one in ids.items()}
        listed[path] = [kind for kind, answer in answers.items() if answer.status_code == 200]
    assert listed == {
        "/v1/agents": ["agent"],
        "/v1/calls": [],
        "/v1/events": ["evt"],
        "/v1/phone-numbers": ["phone"],
        "/v1/sip/trunks": ["trunk"],
        "/v1/webhooks": ["webhook"],
        "/v1/webhooks/{webhook_id}/deliveries": ["dlv"],
    }


async def test_null_is_refused_where_there_always_is_something(client):
    ids = {"/v1/sip/trunks/{trunk_id}": "trunk", "/v1/phone-numbers/{phone_id}": "phone"}
    ids |= {"/v1/agents/{agent_id}": "agent", "/v1/webhooks/{webhook_id}": "webhook"}
    for path, kind in ids.items():
        schema = resolve(operations()[path, "patch"]["requestBody"]["content"]["application/json"]["schema"])
        for name, field in schema["properties"].items():
            answer = await client.patch(at(path, new_id(kind)), json={name: None})
            if {"type": "null"} in field.get("anyOf", ()):
                is_refused(answer, 404)
                continue
            is_refused(answer, 400)
            error = answer.json()["error"]
            assert (error["message"], error["details"]) == (
                f"{name}: can be changed, not removed",
                {"field": name},
            )


async def test_every_field_of_a_wrong_type(client):
    for (path, method), field, value in product_of_fields():
        answer = await client.request(method.upper(), at(path), json=example_of(path, method) | {field: value})
        if answer.status_code >= 300:
            is_refused(answer, 400, 404, 409)


async def test_wrong_content_types(client):
    kinds = ["text/plain", "application/xml", "multipart/form-data; boundary=x", "json", "\xff"]
    for (path, method), kind in product(WITH_BODY, kinds):
        answer = await client.request(
            method.upper(), at(path), content=b"{}", headers={"Content-Type": kind.encode("latin-1")}
        )
        is_refused(answer, 400)


async def test_query_parameters(client):
    values = ["", "x" * 5_000, "%00", "%ff%fe", "9" * 400, "-1", "1e400", "%F0%9F%92%A9", "[]", "null"]
    for (path, method), value in product(OPERATIONS, values):
        is_refused(await client.request(method.upper(), f"{at(path)}?surprise={value}"), 400)
        known = [each["name"] for each in operations()[path, method].get("parameters", ()) if each["in"] == "query"]
        for name in known:
            answer = await client.request(method.upper(), f"{at(path)}?{name}={value}")
            if answer.status_code >= 300:
                is_refused(answer, 400, 403, 404)


async def test_an_unknown_parameter_is_named(client):
    error = (await client.get("/v1/calls?surprise=1")).json()["error"]
    assert (error["code"], error["details"]) == ("invalid_parameter", {"field": "surprise"})


async def test_ids(client):
    values = ["x", "%00", "%ff", "'", "x" * 5_000, "%F0%9F%92%A9", "null", "%20", "import"]
    for (path, method), value in product(OPERATIONS, values):
        if "{" in path:
            answer = await client.request(method.upper(), at(path, value), json={})
            is_refused(answer, 400, 403, 404, 405)


async def test_wrong_methods(client):
    for path in sorted({path for path, _ in OPERATIONS}):
        here = {method for method in METHODS if operation_at(method, at(path))}
        for method in set(METHODS) - here:
            answer = await client.request(method, at(path))
            is_refused(answer, 405)
            assert answer.json()["error"]["code"] == "method_not_allowed"
            literal = {known.upper() for template, known in OPERATIONS if template == path}
            assert set(answer.headers["allow"].split(", ")) - {"HEAD"} == literal


async def test_unknown_paths(client):
    for path in ["/v1", "/v1/", "/v1/nothing", "/v2/calls", "/v1/calls/", "/v1//calls", "/%00"]:
        answer = await client.get(path)
        is_refused(answer, 404)
        assert answer.json()["error"]["code"] == "not_found"


async def test_a_browser_at_the_printed_address_finds_the_reference(client):
    browsers = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
    for path in ("/", "/v1"):
        answer = await client.get(path, headers=browsers)
        assert (answer.status_code, answer.headers["location"]) == (307, "/docs")
        assert (await client.get(path, headers=browsers, follow_redirects=True)).text.startswith("<!doctype html>")
        for headers in ({}, {"Accept": "application/json"}):
            answer = await client.get(path, headers=headers)
            is_refused(answer, 404)
            assert answer.json()["error"]["code"] == "not_found"


async def test_head_is_get_without_the_body(client):
    for path, method in OPERATIONS:
        if method == "get":
            got, head = await client.get(at(path)), await client.head(at(path))
            assert (got.status_code, got.headers["content-type"]) == (head.status_code, head.headers["content-type"])


async def test_without_a_key_and_with_odd_ones(api):
    client = await api.client(None)
    odd = [None, "Bearer", "Basic dXNlcjpwYXNz", "Bearer \xff\xfe", "Bearer " + "x" * 10_000, "bearer x y"]
    for (path, method), header in product(OPERATIONS, odd):
        headers = {} if header is None else {"Authorization": header.encode("latin-1")}
        if operations()[path, method]["security"]:
            answer = await client.request(method.upper(), at(path), json=example_of(path, method), headers=headers)
            is_refused(answer, 401)


async def test_odd_headers(client):
    odd = {"X-Request-Id": "mine", "Accept": "\x7f", "Content-Length-": "-1", "Range": "bytes=9-1", "Expect": "x"}
    answer = await client.get("/v1/calls", headers={name: value.encode() for name, value in odd.items()})
    assert answer.status_code == 200
    assert answer.headers["x-request-id"] != "mine"


async def test_what_can_not_be_written_as_json_is_not_repeated(client):
    answer = await client.post(
        "/v1/agents",
        content=json.dumps({"name": 10**400, "engine": "openai"}),
        headers={"Content-Type": "application/json"},
    )
    is_refused(answer, 400)
    assert answer.json()["error"]["details"] == {"field": "name"}

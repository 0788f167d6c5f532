"""The OpenAPI document names everything that there is, and nothing else."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
import voxpria_server
from voxpria_server import errors
from voxpria_server.kit.routes import Route
from voxpria_server.reference import openapi
from voxpria_server.reference.openapi import resolve
from voxpria_server.trunks.schemas import TrunkConfig

from server.tests.contract import operations, schema_validator

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]
SOURCES = sorted(Path(voxpria_server.__file__).parent.rglob("*.py"))
OF_ALL = {"invalid_parameter", "missing_required_field", "payload_too_large", "server_error", "api_key_missing"}
OF_ALL |= {"invalid_api_key", "insufficient_permissions", "not_found", "method_not_allowed", "invalid_edge_token"}
OF_ALL |= {"invalid_webhook_signature"}


OF_THE_OPERATOR = {"account_not_found", "plan_not_found", "key_not_found", "member_exists", "key_is_over"}
"""Raised within `./run admin` only."""


def _classes() -> dict[str, type[errors.ApiError]]:
    return {
        name: one for name, one in vars(errors).items() if isinstance(one, type) and issubclass(one, errors.ApiError)
    }


def _raised() -> set[tuple[str, int, str]]:
    """Every error that the server's source makes: file, status and code."""
    return {found for source in SOURCES for found in _raised_in(source.name, ast.parse(source.read_text()))}


def _raised_in(file: str, tree: ast.Module) -> Iterator[tuple[str, int, str]]:
    texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    for node in ast.walk(tree):
        kind = _classes().get(getattr(node.func, "id", "")) if isinstance(node, ast.Call) else None
        if kind is None:
            continue
        match next((keyword.value for keyword in node.keywords if keyword.arg == "code"), None):
            case None:
                yield file, kind.status, kind.code
            case ast.Constant(value=code):
                yield file, kind.status, code
            case _:  # out of a table of the same file
                yield from (
                    (file, kind.status, code)
                    for code in texts & errors.CODES.keys()
                    if errors.CODES[code].status == kind.status
                )


def test_every_code_that_is_raised_is_catalogued_with_its_status():
    unknown = {
        (file, status, code)
        for file, status, code in _raised()
        if code not in errors.CODES or (errors.CODES[code].status != status and (status, code) != (503, "server_error"))
    }
    assert not unknown, "name it in errors.CODES"


def test_every_catalogued_code_is_raised():
    raised = {code for _, _, code in _raised()}
    assert set(errors.CODES) - raised == set()


def test_every_code_is_declared_by_a_route_or_belongs_to_all():
    declared = {code for route in openapi.routes() for codes in openapi.codes_of(route).values() for code in codes}
    assert set(errors.CODES) - declared - OF_ALL - OF_THE_OPERATOR == set(), (
        "name it with responses=raises(…) where it is raised"
    )


def test_every_route_with_an_id_says_what_it_answers_to_an_unknown_one():
    silent = [
        route.name for route in openapi.routes() if "{" in str(route.path_format) and 404 not in openapi.codes_of(route)
    ]
    assert silent == []


def test_every_route_refuses_what_it_does_not_know():
    lax = [route.name for route in openapi.routes() if not isinstance(route.original_route, Route)]
    assert lax == [], "make its router with route_class=KeyedRoute (or Route, where no key is asked for)"


def test_every_operation_is_complete():
    for (path, method), operation in operations().items():
        where = f"{method} {path}"
        assert operation["tags"][0] in openapi.TAGS, where
        assert operation["summary"], where
        assert "422" not in operation["responses"], where
        assert {"400", "500", "503"} <= operation["responses"].keys(), where
        assert operation["security"] == [] or {"401", "403"} <= operation["responses"].keys(), where
        for parameter in operation.get("parameters", ()):
            assert parameter["schema"], f"{where} {parameter}"
            assert "description" in parameter, f"{where} {parameter}"
        for status, response in operation["responses"].items():
            headers = resolve(response)["headers"]
            assert "X-Request-Id" in headers, f"{where} {status}"


def _parts(schema: dict) -> Iterator[dict]:
    """Every schema within one, and itself."""
    schema = resolve(schema)
    yield schema
    within = [*schema.get("properties", {}).values(), *schema.get("anyOf", ()), *schema.get("oneOf", ())]
    for each in [*within, *([schema["items"]] if "items" in schema else [])]:
        yield from _parts(each)


def test_a_body_names_no_defaults():
    """A client made from the document sends a field's default when nobody set it, or wants it to be set."""
    for (path, method), operation in operations().items():
        for media in operation.get("requestBody", {}).get("content", {}).values():
            assert [part for part in _parts(media["schema"]) if "default" in part] == [], f"{method} {path}"


def test_a_default_of_a_body_is_told_unless_it_is_a_change():
    created = openapi.document()["components"]["schemas"]["GenericConfig"]["properties"]
    assert created["transport"]["description"].endswith('Default: `"udp"`.')
    schemas = openapi.document()["components"]["schemas"]
    assert schemas["NumberConfig"]["properties"]["max_duration"]["description"].endswith("Default: `3600`.")
    assert "Default" not in schemas["NumberConfigUpdate"]["properties"]["max_duration"]["description"]


def test_a_trunk_is_described_provider_by_provider():
    """By name, so that clients made from the document have a type for each."""
    body = openapi.document()["components"]["schemas"]["TrunkCreate"]
    kinds = {name: resolve({"$ref": reference}) for name, reference in body["discriminator"]["mapping"].items()}
    assert {"elevenlabs", "openai", "generic"} == set(kinds)
    assert {each["$ref"] for each in body["oneOf"]} == set(body["discriminator"]["mapping"].values())
    required = {name: set(kind["required"]) - {"name", "provider"} for name, kind in kinds.items()}
    assert required == {"elevenlabs": {"credentials"}, "openai": {"credentials"}, "generic": {"config"}}
    for name, kind in kinds.items():
        config = resolve(kind["properties"]["config"])
        assert config["properties"].keys() == {field.alias or own for own, field in TrunkConfig.model_fields.items()}, (
            name
        )


def test_a_list_goes_on_after_a_row_of_its_own():
    for (path, _), operation in operations().items():
        example = {each["name"]: each.get("example") for each in operation.get("parameters", ())}.get("starting_after")
        if example is not None:
            rows = operation["responses"]["200"]["content"]["application/json"]["example"]["data"]
            assert example == rows[0]["id"], path


def test_schemas_have_names_that_a_client_can_use():
    odd = [name for name in openapi.document()["components"]["schemas"] if "__" in name or "-" in name]
    assert {"NumberConfig", "TrunkConfig"} <= openapi.document()["components"]["schemas"].keys()
    assert odd == [], "two models of one name, or one that is sent otherwise than it is shown"


def test_operation_ids_are_distinct():
    ids = [operation["operationId"] for operation in operations().values()]
    assert len(set(ids)) == len(ids)


def _examples():
    everything = {**openapi.document()["paths"], **openapi.document()["webhooks"]}
    for path, item in everything.items():
        for method, operation in item.items():
            for part in (operation.get("requestBody", {}), *map(resolve, operation["responses"].values())):
                for media in part.get("content", {}).values():
                    given = [each["value"] for each in media.get("examples", {}).values()]
                    for example in [*given, *([media["example"]] if "example" in media else [])]:
                        yield f"{method} {path}", media["schema"], example
            for parameter in operation.get("parameters", ()):
                if "example" in parameter:
                    yield f"{method} {path} {parameter['name']}", parameter["schema"], parameter["example"]


def test_every_json_body_has_an_example():
    for (path, method), operation in operations().items():
        for part in (operation.get("requestBody", {}), *map(resolve, operation["responses"].values())):
            media = part.get("content", {}).get("application/json")
            assert media is None or media.keys() & {"example", "examples"}, f"{method} {path}"


def test_every_example_fits_its_schema():
    for where, schema, example in _examples():
        problems = [
            f"{list(error.instance_path)}: {error.message}" for error in schema_validator(schema).iter_errors(example)
        ]
        assert not problems, f"{where}: {problems}; give the field examples, as reference/examples.py says"


def test_the_webhooks_are_the_five_events():
    assert set(openapi.document()["webhooks"]) == {
        "call.started",
        "call.ended",
        "call.failed",
        "number.provisioned",
        "trunk.updated",
    }


def test_the_copy_in_the_projects_root_is_current():
    assert (ROOT / "openapi.json").read_text() == openapi.dump(), "renew it: ./run openapi"

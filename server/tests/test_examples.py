"""The documented examples, run: every curl command of the reference, by curl, against a running server."""

import json
import subprocess

import pytest
from voxpria_server.reference import pages
from voxpria_server.reference.openapi import document

from server.tests import contract
from server.tests.process import Process

IN_ORDER = ("create_agent", "create_trunk", "import_number", "bulk_import", "create_webhook", "send_test_event")
"""What makes the things that the others are about; their ids are put where the examples have made-up ones."""

LAST = ("delete_number", "delete_agent", "delete_trunk", "delete_webhook")
_MADE = {"create_agent": "agent", "create_trunk": "trunk", "import_number": "phone", "create_webhook": "webhook"}
_ID = "01k9zq3v5xe8t9m2y6w4r7n1ab"


def _examples(base_url: str) -> list[tuple[str, str, str]]:
    """Return operation, the example's name, and its command; makers first, ends last."""
    found = [
        (operation["id"], name, command)
        for tag in pages.TAGS
        for operation in pages._group(tag, base_url)
        for name, command in operation["curls"].items()
    ]
    rank = {name: place for place, name in enumerate(IN_ORDER)} | {name: 900 + i for i, name in enumerate(LAST)}
    return sorted(found, key=lambda each: rank.get(each[0], 100))


def _run(command: str) -> tuple[int, str]:
    done = subprocess.run(
        ["bash", "-c", f"{command} -s -w '\\n%{{http_code}}'"], capture_output=True, text=True, timeout=60, check=True
    )
    body, _, status = done.stdout.rpartition("\n")
    return int(status), body


@pytest.mark.timeout(1200)
def test_every_documented_example_does_what_it_says(settings, own_cluster):
    process = Process(settings, own_cluster.url("postgres"))
    ids: dict[str, str] = {}
    answered: dict[str, set[int]] = {}
    try:
        process.until("/healthz", 200)
        for operation, name, example in _examples(process.url):
            command = example.replace("curl -O ", "curl ")  # its answer is looked at here
            for kind, made in ids.items():
                command = command.replace(f"{kind}_{_ID}", made)
            status, body = _run(command)
            where = f"{operation} {name}: {status} {body[:400]}\n{command}"
            documented = next(one for one in contract.operations().values() if one["operationId"] == operation)
            assert str(status) in documented["responses"], where
            answered.setdefault(operation, set()).add(status)
            validator = contract.validator(operation, str(status))
            assert validator is None or validator.is_valid(json.loads(body)), where
            if status == 201 and operation in _MADE:
                ids.setdefault(_MADE[operation], json.loads(body)["id"])
    finally:
        process.end()
    made = set(IN_ORDER) | {"list_trunks", "get_trunk", "update_trunk", "list_numbers", "get_number", "update_number"}
    made |= {"list_agents", "get_agent", "update_agent", "list_webhooks", "get_webhook", "update_webhook", "list_calls"}
    failed = {name: answered.get(name) for name in made if min(answered.get(name, {999})) >= 300}
    assert not failed
    assert answered.keys() == {one["operationId"] for item in document()["paths"].values() for one in item.values()}

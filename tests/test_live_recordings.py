"""Live calls: recorded only where their trunk says so, and nothing of their media or its keys stays behind."""

import base64
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from media_tools import decode, loudest_hertz
from rtp_peer import PCMU, rtp_peer
from sipp_tool import body, sipp
from test_media import SUITE, SUITES, hear_each_other, offer_to

from tests.ports import free_port
from tests.product import Product, until

CARRIER, SERVER = "127.0.0.28", "127.0.0.29"
NUMBERS = iter(["+14155550131", "+14155550132", "+14155550133"])
ANNOUNCEMENT = {"text": "This call is recorded.", "language": "en"}
_KEY = re.compile(r"inline:([A-Za-z0-9+/=]+)")


@pytest.fixture(scope="module")
def live(product: Product) -> str:
    """A live key."""
    account = json.loads(_admin(product, "accounts", "create", "Live"))["id"]
    made = json.loads(_admin(product, "keys", "create", account, "--name", "Tests", "--mode", "live"))
    return str(made["secret"])


def _admin(product: Product, *words: str) -> str:
    """Answer of the operator's command line, as `./run admin --json` runs it."""
    settings = {"DATA_DIR": product.data, "HTTP_PORT": product.http_port, "SIP_PORT": product.sip_port}
    done = subprocess.run(
        [sys.executable, "-m", "voxpria_launcher.within", "voxpria_server.admin", "--json", *words],
        env={**os.environ, **{f"VOXPRIA_{name}": str(value) for name, value in settings.items()}},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return done.stdout


def api(product: Product, key: str, method: str, path: str, body: object = None) -> dict[str, Any]:
    answer = httpx2.request(
        method, f"{product.url}/v1{path}", json=body, headers={"Authorization": f"Bearer {key}"}, timeout=30
    )
    assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
    return dict(answer.json())


def number_of(product: Product, key: str, port: int, **config: object) -> str:
    """A live number whose trunk's server, at this port, requires SRTP; `config` is the trunk's."""
    trunk = api(
        product,
        key,
        "POST",
        "/sip/trunks",
        {
            "name": f"Live {port}",
            "provider": "generic",
            "credentials": {},
            "config": {
                "server": SERVER,
                "port": port,
                "allowed_addresses": [CARRIER],
                "media_encryption": "required",
                **config,
            },
        },
    )
    kept = api(product, key, "GET", f"/sip/trunks/{trunk['id']}")["config"]
    assert kept["record"] is bool(config.get("record"))
    body = {"phone_number": next(NUMBERS), "trunk_id": trunk["id"]}
    number = api(product, key, "POST", "/phone-numbers/import", body)
    api(product, key, "POST", f"/phone-numbers/{number['id']}/provision")
    return str(body["phone_number"])


def sounds(product: Product) -> set[Path]:
    """The announcements that the edge has made, other tests' too."""
    return {*(product.data / "edge" / "announcements").glob("*.wav")}


def called(product: Product, key: str, folder: Path, **config: object) -> tuple[dict[str, Any], set[str]]:
    """Have both sides talk over SRTP through a live trunk; return the call's record, and every key in its SDPs."""
    port, made_before = free_port(), sounds(product)
    number = number_of(product, key, port, **config)
    if "recording_announcement" in config:
        until("the announcement is made", lambda: sounds(product) - made_before)
    with (
        rtp_peer(CARRIER, PCMU, 440, SUITE) as caller,
        rtp_peer(SERVER, PCMU, 1000, SUITE) as agent,
    ):
        caller.tag = 1
        agent.tag = list(dict.fromkeys([SUITE, *SUITES])).index(SUITE) + 1
        with (
            sipp("agent_answers_with", folder, address=SERVER, port=port, keys=agent.keys) as server,
            sipp(
                "carrier_offers_and_waits_for_bye",
                folder,
                address=CARRIER,
                to=("127.0.0.1", product.sip_port),
                number=number,
                keys=caller.keys,
            ) as calling,
        ):
            caller.talk(until("the caller is answered", lambda: _answer(calling.received)))
            agent.talk(until("the agent is called", lambda: offer_to(server)))
            hear_each_other(caller, agent)
            [call] = api(product, key, "GET", f"/calls?phone_number=%2B{number[1:]}")["data"]
            api(product, key, "POST", f"/calls/{call['id']}/hangup")
            calling.wait()
            server.wait()
        keys = set(_KEY.findall(calling.messages + server.messages))

    def measured() -> dict[str, Any] | None:
        record = api(product, key, "GET", f"/calls/{call['id']}")
        return record if {"measured", "timed"} <= {event["type"] for event in record["events"]} else None

    return until("the call is measured", measured), keys


def _answer(received: list[str]) -> str:
    return next((body(message) for message in received if message.startswith("SIP/2.0 200")), "")


def left(product: Product, keys: set[str]) -> list[str]:
    """Files in the data folder that hold a key, as it stood in an SDP or as it is, or that are of a capture."""
    sought = [form for key in keys for form in (key.encode(), base64.b64decode(key + "=="))]
    found = []
    for path in _files(product.data):
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            continue
        if "captures" in path.parts or any(form in content for form in sought):
            found.append(str(path.relative_to(product.data)))
    return found


def _files(folder: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(folder):
        yield from (path for path in (Path(parent, name) for name in names) if path.is_file())


def test_a_live_call_is_not_recorded_unless_its_trunk_says_so(product: Product, live: str, tmp_path: Path) -> None:
    record, keys = called(product, live, tmp_path)
    assert record["status"] == "completed"
    assert record["recording_url"] is None
    assert len(keys) >= 4
    until("neither keys nor captures are left", lambda: not left(product, keys))


@pytest.mark.parametrize("announcement", [None, ANNOUNCEMENT])
def test_a_live_call_of_a_trunk_that_records_is_and_no_key_is_left(
    product: Product, live: str, tmp_path: Path, announcement: dict[str, str] | None
) -> None:
    config = {"record": True, **({"recording_announcement": announcement} if announcement else {})}
    record, keys = called(product, live, tmp_path, **config)
    link = until("the recording", lambda: api(product, live, "GET", f"/calls/{record['id']}")["recording_url"])
    mp3 = tmp_path / "recording.mp3"
    mp3.write_bytes(httpx2.get(link, timeout=30).content)
    (left_side, right_side), rate = decode(mp3)
    assert abs(loudest_hertz(left_side[-rate:], rate) - 440) < 5
    assert abs(loudest_hertz(right_side[-rate:], rate) - 1000) < 5
    until("neither keys nor captures are left", lambda: not left(product, keys))

"""How soon after its hang-up a call's recording can be heard: `python -m bench.recording_delay`.

The whole product is started on ports and a folder of its own; the sandbox's carrier talks with the sandbox's agent for
a minute, a few times one after another. Counted is from the carrier's BYE to the first byte of the mp3 over HTTP.
"""

import argparse
import tempfile
import time
from pathlib import Path

import httpx2

from bench.helper import machine, percentile, table
from tests.product import Product

_NUMBER = "+15555551234"


def measure(product: Product, calls: int, seconds: float) -> list[tuple[float, int]]:
    """Place the calls; return each one's delay in seconds, and its recording's size in bytes."""
    found = []
    for _ in range(calls):
        result = product.call(_NUMBER, seconds=seconds)
        hung_up_at = time.monotonic()
        url = None
        while url is None:
            url = product.api("GET", f"/calls/{result['call_id']}")["recording_url"]
            time.sleep(0.02)  # a listener asks now and then; asking without end would take the core from the edge
        answer = httpx2.get(url, timeout=30)
        answer.raise_for_status()
        found.append((time.monotonic() - hung_up_at, len(answer.content)))
    return found


def _prepare(product: Product) -> None:
    body = {
        "name": "Bench",
        "provider": "generic",
        "credentials": {"username": "test_user", "password": "test_pass"},
        "config": {"server": "sip.test.voxpria.com"},
    }
    trunk = product.api("POST", "/sip/trunks", body)
    agent = product.api("POST", "/agents", {"name": "Bench", "engine": "elevenlabs"})
    body = {"phone_number": _NUMBER, "trunk_id": trunk["id"], "agent_id": agent["id"]}
    imported = product.api("POST", "/phone-numbers/import", body)
    product.api("POST", f"/phone-numbers/{imported['id']}/provision")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.recording_delay", description=__doc__)
    parser.add_argument("--calls", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=60)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Product.started(Path(folder) / "product") as product:
        _prepare(product)
        found = measure(product, options.calls, options.seconds)
    print(f"`python -m bench.recording_delay --calls {options.calls} --seconds {options.seconds:g}`\n\n{machine()}\n")
    delays = [delay for delay, _ in found]
    row = (len(found), f"{options.seconds:g}", percentile(delays, 50), max(delays), max(size for _, size in found))
    print(table(["calls", "seconds each", "delay s, p50", "longest", "bytes"], [row]))


if __name__ == "__main__":
    main()

"""Trunks and numbers as the tests need them."""

from voxpria_routing.snapshot import Number, Trunk

CARRIER = "127.0.0.8"
"""The address that the tests' carrier calls from."""
AGENT = "127.0.0.2"
"""The address of the tests' trunk servers."""


def trunk_to(port: int, **values: object) -> Trunk:
    """Return a trunk whose server is at `AGENT`, and whose carrier is at `CARRIER`; `values` change it."""
    given = {
        "id": "trunk_a",
        "account_id": "acc_a",
        "mode": "test",
        "name": "The trunk",
        "provider": "generic",
        "server": AGENT,
        "port": port,
        "transport": "udp",
        "allowed_addresses": (CARRIER,),
    }
    return Trunk(**{**given, **values})  # type: ignore[arg-type]


def number_on(trunk: Trunk, e164: str, **values: object) -> Number:
    """Return a number that arrives through `trunk` and goes to its server; `values` change it."""
    given = {
        "id": f"phone_{e164[1:]}",
        "e164": e164,
        "account_id": trunk.account_id,
        "mode": trunk.mode,
        "carrier_trunk_id": trunk.id,
        "agent_trunk_id": trunk.id,
    }
    return Number(**{**given, **values})  # type: ignore[arg-type]

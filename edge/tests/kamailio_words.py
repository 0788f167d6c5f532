"""What Kamailio says, made by hand: each function gives one message as routes/tell.cfg would send it."""

import base64
import itertools
import json
import uuid

from voxpria_edge.proxy import messages
from voxpria_routing.snapshot import Number, Snapshot, Trunk
from voxpria_routing.table import Table

BEGIN = 1_790_000_000.25
ALLOWED, STRANGER = "203.0.113.1", "203.0.113.9"
TRUNK = Trunk(
    id="trunk_a",
    account_id="acct_a",
    mode="live",
    name="Carrier",
    provider="generic",
    server="sip.example.com",
    port=5070,
    transport="tcp",
    username="user",
    password="secret",
    allowed_addresses=("203.0.113.0/29",),
)
NUMBER = Number(
    id="phone_1",
    e164="+15555551234",
    account_id="acct_a",
    mode="live",
    carrier_trunk_id=TRUNK.id,
    agent_trunk_id=TRUNK.id,
    agent_id="agent_1",
    first_message='Hello,\r\nX-Evil: "yes"',
    max_duration_seconds=120,
)
ROUTES = Snapshot(version=1, trunks={TRUNK.id: TRUNK}, numbers={NUMBER.e164: (NUMBER,)})
TABLE = Table(ROUTES)
_labels = itertools.count(1)


def base64_of(value: bytes | str) -> str:
    return base64.b64encode(value.encode() if isinstance(value, str) else value).decode()


def invite(at: float = BEGIN, *, source: str = ALLOWED, to: str = NUMBER.e164, **fields: object) -> dict[str, object]:
    said: dict[str, object] = {
        "kind": "invite",
        "id": str(uuid.uuid4()),
        "at": f"{at:.6f}",
        "index": 77,
        "label": next(_labels),
        "source": source,
        "port": 5060,
        "transport": "udp",
        "call_id": base64_of(f"call-{uuid.uuid4()}"),
        "from_tag": base64_of("tag"),
        "request_uri": base64_of(f"sip:{to}@edge.example.com"),
        "from_uri": base64_of("sip:+13038921234@carrier.example.com"),
        "to_uri": base64_of(f"sip:{to}@edge.example.com"),
        "contact": base64_of(f"<sip:carrier@{source}:5062>"),
    }
    return said | fields


def progress(kind: str, record: str, at: float = BEGIN + 1) -> dict[str, object]:
    return {"kind": kind, "id": str(uuid.uuid4()), "at": f"{at:.6f}", "record": base64_of(record)}


def answered(record: str, at: float = BEGIN + 1, **fields: object) -> dict[str, object]:
    """An answer with all that it takes to speak to who gave it; ours is the lower of two Record-Routes."""
    said: dict[str, object] = {
        **progress("answered", record, at),
        "from": base64_of("<sip:+13038921234@edge.example.com>;tag=tag"),
        "to": base64_of(f'"Desk" <sip:{NUMBER.e164}@sip.example.com>;tag=theirs'),
        "call_id": base64_of("call-as-kamailio-has-it"),
        "contact": base64_of("<sip:desk@10.0.0.7:5070;transport=tcp>"),
        "record_route": base64_of(
            f"<sip:far.example.com;lr>, <sip:near.example.com;lr>, <sip:edge.example.com;lr;call={record}>"
        ),
    }
    return said | fields


def ended(record: str, at: float = BEGIN + 5, **fields: object) -> dict[str, object]:
    said: dict[str, object] = {
        "kind": "ended",
        "id": str(uuid.uuid4()),
        "at": f"{at:.6f}",
        "record": base64_of(record),
        "asked": "",
        "cause": "hangup",
        "by": "caller",
        "code": 200,
        "reason": base64_of("OK"),
    }
    return said | fields


def heard(said: dict[str, object]) -> messages.Message:
    """The message as the agent decodes it."""
    return messages.decode(json.dumps(said).encode())

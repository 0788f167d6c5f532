from datetime import UTC, datetime

import msgspec
import pytest
from voxpria_routing.decision import Cause, Explanation
from voxpria_routing.events import Batch, Ended, Invited

pytestmark = pytest.mark.unit

NOW = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)


def test_a_batch_survives_its_wire_form() -> None:
    invited = Invited(
        id="evt_1",
        call_id="call_1",
        at=NOW,
        account_id="acc_1",
        mode="test",
        from_="+13035559876",
        to="+15555551234",
        number_id=None,
        trunk_id="trunk_1",
        agent_id=None,
        edge_id="edge_1",
        sip_call_id="a@b",
        source="127.0.0.1:5060",
        transport="udp",
        refusal=Cause.NUMBER_NOT_FOUND,
        explanation=Explanation(summary="No such number."),
    )
    ended = Ended(
        id="evt_2", call_id="call_1", at=NOW, cause="refused", by="edge", sip_code=404, sip_reason="Not Found"
    )
    batch = Batch(edge_id="edge_1", events=(invited, ended))
    wire = msgspec.json.encode(batch)
    assert b'"from":"+13035559876"' in wire
    assert msgspec.json.decode(wire, type=Batch) == batch


def test_a_time_without_zone_is_refused() -> None:
    event = {"kind": "answered", "id": "e", "call_id": "c", "at": "2026-01-02T03:04:05", "recording": True}
    wire = msgspec.json.encode({"edge_id": "e", "events": [event]})
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(wire, type=Batch)

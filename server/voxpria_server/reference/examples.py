"""Examples for the OpenAPI document: a schema's own, else by the field's name, else the plainest value that fits.

A test holds every example against its schema, so a field that none of these fits says so there: give it
`Field(examples=[…])`.
"""

from collections.abc import Mapping
from typing import Any

Schema = Mapping[str, Any]

_ID = "01k9zq3v5xe8t9m2y6w4r7n1ab"

REQUESTS: Mapping[str, Mapping[str, Any]] = {
    "create_trunk": {
        "Any SIP server": {
            "name": "My carrier",
            "provider": "generic",
            "credentials": {"username": "test_user", "password": "test_pass"},
            "config": {"server": "sip.test.voxpria.com", "allowed_addresses": ["198.51.100.0/24"]},
        },
        "ElevenLabs": {
            "name": "My ElevenLabs",
            "provider": "elevenlabs",
            "credentials": {"username": "my_username", "password": "my_password"},
        },
        "OpenAI": {
            "name": "My OpenAI",
            "provider": "openai",
            "credentials": {
                "project_id": "proj_abc123",
                "api_key": "sk-proj-xyz789",
                "webhook_secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            },
        },
    },
    "bulk_import": {
        "Two numbers": {
            "trunk_id": f"trunk_{_ID}",
            "numbers": [
                {"phone_number": "+12125550101", "agent_id": f"agent_{_ID}"},
                {"phone_number": "+12125550102", "agent_id": f"agent_{_ID}"},
            ],
        }
    },
    "update_trunk": {"Another name": {"name": "My first carrier"}},
    "import_number": {
        "A number": {
            "phone_number": "+15555551234",
            "trunk_id": f"trunk_{_ID}",
            "agent_id": f"agent_{_ID}",
            "config": {"first_message": "Hello! How can I help you today?", "max_duration": 1800, "language": "en-US"},
        }
    },
    "update_number": {"Another greeting": {"config": {"first_message": "Good evening! What can I do for you?"}}},
    "create_agent": {
        "An agent": {
            "name": "Front desk",
            "engine": "elevenlabs",
            "instructions": "You answer the phone of a bakery. Be brief.",
            "language": "en-US",
        }
    },
    "update_agent": {"Other words": {"instructions": "You answer the phone of a bakery. Be brief and friendly."}},
    "create_webhook": {
        "Calls that are over": {
            "url": "https://your-app.com/webhooks/voxpria",
            "events": ["call.ended", "call.failed"],
            "secret": "your_webhook_secret",
        }
    },
    "update_webhook": {"Switched off": {"status": "disabled"}},
    "send_test_event": {"An ended call": {"event": "call.ended"}},
}
"""Bodies that were thought out, by the operation."""

BY_NAME: Mapping[str, Any] = {
    "trunk_id": f"trunk_{_ID}",
    "engine_trunk_id": f"trunk_{_ID}",
    "phone_id": f"phone_{_ID}",
    "phone_number_id": f"phone_{_ID}",
    "agent_id": f"agent_{_ID}",
    "call_id": f"call_{_ID}",
    "webhook_id": f"webhook_{_ID}",
    "event_id": f"evt_{_ID}",
    "delivery_id": f"dlv_{_ID}",
    "request_id": f"req_{_ID}",
    "username": "test_user",
    "password": "test_pass",
    "phone_number": "+15555551234",
    "number": "+15555551234",
    "from": "+13035559876",
    "to": "+15555551234",
    "name": "Front desk",
    "trunk_name": "My carrier",
    "agent_name": "Front desk",
    "external_id": "agent_7101k5zvyjhmfg983brhmhkd98n6",
    "instructions": "You answer the phone of a bakery. Be brief.",
    "voice": "alloy",
    "model": "gpt-realtime",
    "language": "en-US",
    "first_message": "Hello! How can I help you today?",
    "url": "https://your-app.com/webhooks/voxpria",
    "recording_url": f"https://api.example.com/v1/recordings/call_{_ID}.mp3?expires=1769000000&signature=5f0c…",
    "server": "sip.example.com",
    "port": 5060,
    "allowed_addresses": ["198.51.100.0/24"],
    "codecs": [],
    "failover_trunk_ids": [],
    "max_concurrent_calls": None,
    "max_calls_per_second": None,
    "recording_announcement": None,
    "country": None,
    "ring_timeout": None,
    "status_reason": None,
    "duration": 127,
    "duration_ms": 48,
    "latency_ms": 21.4,
    "max_duration": 3600,
    "phone_numbers_count": 5,
    "total_calls": 127,
    "total_minutes": 423.5,
    "total": 1,
    "page": 1,
    "per_page": 20,
    "status_code": 200,
    "sip_code": 200,
    "sip_reason": "OK",
    "end_cause": "hangup",
    "ended_by": "caller",
    "caller_location": "Denver, CO",
    "call_quality": "excellent",
    "mos": 4.4,
    "codec": "PCMU",
    "packets": 6350,
    "lost": 2,
    "loss_percent": 0.03,
    "jitter_ms": 1.2,
    "post_dial_delay_ms": 640.2,
    "edge_ms": 4.1,
    "agent_ringing_ms": 630.5,
    "agent_answer_ms": 810.7,
    "carrier_ack_ms": 22.4,
    "caller_first_audio_ms": 35.0,
    "agent_first_audio_ms": 180.0,
    "issues": [],
    "source": "packets",
    "source_address": "198.51.100.7",
    "RouteVerdict.cause": None,
    "request_uri": "sip:+15555551234@sip.example.com:5060",
    "Done.message": "Deleted successfully",
    "TestStep.detail": "answered 200 OK",
    "Segment.text": "Hello! How can I help you today?",
    "disabled_reason": None,
    "failing_since": None,
    "former_secret_expires_at": None,
    "Delivery.event": "call.ended",
    "Event.event": "call.ended",
    "Trunk.name": "My carrier",
    "TrunkListed.name": "My carrier",
    "TrunkSummary.name": "My carrier",
    "TrunkUpdated.name": "My carrier",
    "TracedMessage.source": "198.51.100.7:5060",
    "TracedMessage.destination": "203.0.113.10:5060",
    "TracedMessage.summary": "INVITE sip:+15555551234@203.0.113.10 SIP/2.0",
    "TracedMessage.text": "INVITE sip:+15555551234@203.0.113.10 SIP/2.0\r\nCall-ID: 1@198.51.100.7\r\n\r\n",
    "is_truncated": False,
    "response": "ok",
    "error": None,
    "detail": None,
    "Attempt.number": 1,
    "tried": ["number +15555551234", "source 198.51.100.7"],
    "nearest": None,
    "mend": None,
    "started_at": "2026-01-20T14:00:00Z",
    "answered_at": "2026-01-20T14:00:00Z",
    "events": [{"type": "invited", "at": "2026-01-20T14:00:00Z", "offset_ms": 0}],
    "Recovering.events": 3,
    "Webhook.events": ["call.ended", "call.failed"],
    "NewWebhook.events": ["call.ended", "call.failed"],
    "WebhookCreate.events": ["call.ended", "call.failed"],
    "WebhookUpdate.events": ["call.ended", "call.failed"],
    "secret": "your_webhook_secret",
    "start_date": "2026-01-15",
    "end_date": "2026-01-20",
    "summary": "Answered by sip.example.com; the caller hung up.",
    "range": "bytes=0-1023",
    "expires": 1769000000,
    "signature": "5f0c1b",
}
_AT = "2026-01-20T14:02:07Z"
_IDS = {"trunk": "trunk", "number": "phone", "agent": "agent", "call": "call", "webhook": "webhook", "event": "evt"}
"""The prefix of the `id` of an object, by what its schema's name holds; else it is a delivery's."""

_KEYWORDS = ("examples", "enum")
_CHOICES = ("anyOf", "oneOf", "allOf")


class Examples:
    """Makes examples of schemas; what they refer to is among `components`."""

    def __init__(self, components: Mapping[str, Schema]) -> None:
        self._components = components

    def of(self, schema: Schema, name: str = "", owner: str = "") -> Any:  # noqa: ANN401  (any JSON)
        """Return an example: the value of a field called `name`, of an object of the kind `owner`."""
        if "$ref" in schema:
            kind = str(schema["$ref"]).rpartition("/")[2]
            return self.of(self._components[kind], name if "enum" in self._components[kind] else "", kind)
        given = next((schema[keyword][0] for keyword in _KEYWORDS if schema.get(keyword)), schema.get("const"))
        return self._chosen(schema, name, owner) if given is None else given

    def _chosen(self, schema: Schema, name: str, owner: str) -> Any:  # noqa: ANN401
        is_plain = "properties" not in schema and schema.get("type") != "boolean"
        if name == "id":
            return _id_of(owner)
        if f"{owner}.{name}" in BY_NAME:
            return BY_NAME[f"{owner}.{name}"]
        if name in BY_NAME and is_plain and (BY_NAME[name] is not None or {"type": "null"} in schema.get("anyOf", ())):
            return BY_NAME[name]
        if name.endswith("_id") and is_plain:
            return f"{name.removesuffix('_id')}_{_ID}"
        if (name.endswith("_at") or name in {"at", "since", "timestamp"}) and is_plain:
            return _AT
        choice = next((schema[keyword][0] for keyword in _CHOICES if schema.get(keyword)), None)
        return self._plainest(schema, name, owner) if choice is None else self.of(choice, name, owner)

    def _plainest(self, schema: Schema, name: str, owner: str) -> Any:  # noqa: ANN401
        match schema.get("type"):
            case "object":
                fields = schema.get("properties", {})
                return {field: self.of(fields[field], field, owner) for field in fields}
            case "array":
                return [self.of(schema.get("items", {}), name.removesuffix("s"), owner)]
            case "boolean":
                return schema.get("default", True)
            case "integer" | "number":
                return schema.get("default", schema.get("minimum", 1))
            case "null":
                return None
            case _:
                return schema.get("default", "text")


def _id_of(owner: str) -> str:
    prefix = next((prefix for word, prefix in _IDS.items() if word in owner.lower()), "dlv")
    return f"{prefix}_{_ID}"

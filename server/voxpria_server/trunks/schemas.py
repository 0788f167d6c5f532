"""Bodies of this slice's requests and answers; what a trunk's credentials and config may hold."""

import ipaddress
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, Any, Literal, Union

import msgspec
from fastapi.exceptions import RequestValidationError
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    TypeAdapter,
    ValidationError,
    create_model,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from voxpria_server.errors import InvalidParameterError, MissingFieldError
from voxpria_server.kit.answers import Shown
from voxpria_server.kit.changes import Change, Lasting
from voxpria_server.kit.clock import iso, utc_now
from voxpria_server.kit.db import Row
from voxpria_server.providers.doctor import Step
from voxpria_server.providers.hosts import ELEVENLABS_SIP, OPENAI_SIP

ProviderName = Literal["elevenlabs", "openai", "generic"]
Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"\S")]
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_MAX_HOST_LENGTH = 253
_MAX_ADDRESSES = 200


def _host(text: str) -> str:
    host = text.lower().removesuffix(".")
    try:
        return str(ipaddress.ip_address(host.removeprefix("[").removesuffix("]")))
    except ValueError:
        labels = host.split(".")
    if len(host) > _MAX_HOST_LENGTH or not all(map(_LABEL.fullmatch, labels)) or labels[-1].isdigit():
        raise ValueError("a host name or an IP address, without scheme and port")
    return host


def _network(text: str) -> str:
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError("an IP address or a network such as 198.51.100.0/24") from None
    return str(network.network_address) if network.num_addresses == 1 else str(network)


def _one_line(text: str) -> str:
    if not text.isprintable():
        raise ValueError("printable characters only")
    return text


Secret = Annotated[str, Field(min_length=1, max_length=255), AfterValidator(_one_line)]


_CREDENTIALS = (
    "`elevenlabs`: `username`, `password`, and `api_key` if numbers and agents are to be managed there."
    " `openai`: `project_id` (`proj_…`), `api_key` (`sk-…`), `webhook_secret` (`whsec_…`)."
    " `generic`: `username` and `password`, or neither. Never shown again."
)
_CONFIG = (
    "`server`, `port` and `transport` say where the trunk's server is; a generic trunk must name its `server`."
    " `allowed_addresses` and `is_open` say who may call in, the others how calls go."
)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)


class SipCredentials(_Strict):
    """Digest credentials, for servers that want them; none where the server knows us by our address."""

    username: Secret | None = None
    password: Secret | None = None


class ElevenLabsCredentials(_Strict):
    """What ElevenLabs asks for in SIP, and the key of its REST API."""

    username: Secret
    password: Secret
    api_key: Secret | None = None


class OpenAICredentials(_Strict):
    """An OpenAI project."""

    project_id: Annotated[Secret, Field(pattern="^proj_[A-Za-z0-9_-]+$")]
    api_key: Annotated[Secret, Field(pattern="^sk-")]
    webhook_secret: Annotated[Secret, Field(pattern="^whsec_")]
    username: Secret | None = None
    password: Secret | None = None
    """What OpenAI proves itself with where it places calls through us (digest)."""


CREDENTIALS: Mapping[str, type[_Strict]] = {
    "elevenlabs": ElevenLabsCredentials,
    "openai": OpenAICredentials,
    "generic": SipCredentials,
}

DEFAULT_CONFIG: Mapping[str, Mapping[str, Any]] = {
    "elevenlabs": {"server": ELEVENLABS_SIP, "transport": "tls"},
    "openai": {"server": OPENAI_SIP, "transport": "tls", "media_encryption": "required"},
    "generic": {"transport": "udp"},
}

PORTS: Mapping[str, int] = {"udp": 5060, "tcp": 5060, "tls": 5061}
"""The registered port of each transport (RFC 3261 section 19.1.2): what a config without one means."""

CODECS: Mapping[str, tuple[str, ...]] = {
    "elevenlabs": ("PCMU", "PCMA", "G722"),
    "openai": ("PCMU", "PCMA", "G722", "opus"),
    "generic": ("PCMU", "PCMA", "G722", "opus"),
}
"""The codecs that a trunk may be held to, by their names in SDP (RFC 3551, RFC 7587)."""

_CANONICAL_CODECS = {name.lower(): name for names in CODECS.values() for name in names}
_MAX_FAILOVERS = 5


def _codec(text: str) -> str:
    if text.lower() not in _CANONICAL_CODECS:
        known = ", ".join(_CANONICAL_CODECS.values())
        message = f"one of {known}"
        raise ValueError(message)
    return _CANONICAL_CODECS[text.lower()]


def _each_once(texts: list[str]) -> list[str]:
    if len(set(texts)) < len(texts):
        raise ValueError("each at most once")
    return texts


Codec = Annotated[str, AfterValidator(_codec)]
TrunkId = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[\x21-\x7e]+$")]


def _spoken(text: str) -> str:
    words = " ".join(text.split())
    if not words or not words.isprintable():
        raise ValueError("words that can be spoken")
    return words


class RecordingAnnouncement(_Strict):
    """What is spoken to whoever is recorded, before the recording begins."""

    text: Annotated[
        str, Field(min_length=1, max_length=500, examples=["This call is recorded."]), AfterValidator(_spoken)
    ]
    language: Annotated[str, Field(max_length=35, pattern="^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*$")] = "en-US"
    """BCP 47 tag of the language that `text` is in."""


class TrunkConfig(_Strict):
    """Where a trunk's server is, who may call in through it, and how its calls go."""

    server: Annotated[str, Field(min_length=1), AfterValidator(_host)]
    """A host name or an IP address."""
    port: Annotated[int, Field(ge=1, le=65535)]
    transport: Literal["udp", "tcp", "tls"]
    allowed_addresses: Annotated[list[Annotated[str, AfterValidator(_network)]], Field(max_length=_MAX_ADDRESSES)] = []
    """Who may call in; an empty list is nobody."""
    is_open: bool = False
    """Let everybody call in, whatever `allowed_addresses` says."""
    media_encryption: Literal["disabled", "allowed", "required"] = "allowed"
    """Whether media is SRTP (SDES); `required` cuts off who describes other media, and is OpenAI trunks' default."""
    max_concurrent_calls: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """Calls that may be up at once through this trunk, on one edge. Default: any number."""
    max_calls_per_second: Annotated[float, Field(gt=0, le=10_000, allow_inf_nan=False)] | None = None
    """Calls that may begin a second through this trunk, on one edge. Default: any number."""
    register_: Annotated[bool, Field(alias="register")] = False
    """Register with the server (RFC 3261 section 10), so that it sends its calls to us."""
    codecs: Annotated[list[Codec], Field(max_length=10), AfterValidator(_each_once)] = []
    """The codecs to be used, best first; an empty list is all of them."""
    failover_trunk_ids: Annotated[list[TrunkId], Field(max_length=_MAX_FAILOVERS), AfterValidator(_each_once)] = []
    """Trunks that take the calls, in turn, when this one's server does not."""
    asserted_identity: bool = True
    """Say the number in P-Asserted-Identity too, beside From, where a call goes out through this trunk (RFC 3325)."""
    record: bool = False
    """Record the calls through this trunk."""
    recording_announcement: RecordingAnnouncement | None = None
    """Spoken in calls through this trunk before they are recorded; where it can't be, they are not recorded."""
    country: Annotated[str, Field(pattern="^[A-Z]{2}$")] | None = None
    """ISO 3166 code: the country whose national numbers the carrier may send, besides international ones."""
    ring_timeout: Annotated[int, Field(ge=5, le=300)] | None = None
    """Seconds that this trunk's server may ring before the next trunk is tried, or the call given up."""


def _config_of(provider: str, kind: str) -> type[TrunkConfig]:
    """Return what a trunk of this provider may be told in `config`, with its own defaults."""
    told: dict[str, Any] = {
        name: (
            TrunkConfig.model_fields[name].annotation,
            Field(default, description=TrunkConfig.model_fields[name].description),
        )
        for name, default in DEFAULT_CONFIG[provider].items()
    }
    port = Field(None, ge=1, le=65535, description="Default: 5061 with `tls`, else 5060.")
    codecs = f"Some of {', '.join(CODECS[provider])}, best first. Default: all."
    told |= {"port": (int, port), "codecs": (list[str], Field([], max_length=10, description=codecs))}
    if provider != "generic":
        told["register_"] = (
            Literal[False],
            Field(False, alias="register", description="Only a generic trunk's server takes registrations."),
        )
    return create_model(f"{kind}Config", __base__=TrunkConfig, __doc__=TrunkConfig.__doc__, **told)


def _of_provider(provider: str, kind: str) -> type[BaseModel]:
    """Return what a trunk of this provider is created with."""
    credentials, config = CREDENTIALS[provider], _config_of(provider, kind)
    fields: dict[str, Any] = {
        "name": (Name, ...),
        "provider": (Literal[provider], ...),
        "credentials": (credentials, ... if _needs_any(credentials) else {}),
        "config": (config, ... if _needs_any(config) else {}),
    }
    model = create_model(f"{kind}Trunk", __config__=ConfigDict(extra="forbid"), **fields)
    model.__doc__ = f"A trunk of provider `{provider}`."
    return model


def _needs_any(model: type[BaseModel]) -> bool:
    return any(field.is_required() for field in model.model_fields.values())


_KINDS = {"elevenlabs": "ElevenLabs", "openai": "OpenAI", "generic": "Generic"}
_ANY_OF_THEM: Any = Annotated[Union[*itertools.starmap(_of_provider, _KINDS.items())], Field(discriminator="provider")]
_BY_PROVIDER: TypeAdapter[Any] = TypeAdapter(_ANY_OF_THEM)


class TrunkCreate(BaseModel):
    """Body of POST /sip/trunks; `credentials` and `config` depend on the provider: `parse_credentials`, `parse_config`.

    The document says what they hold by the three models of `_BY_PROVIDER`.
    """

    model_config = ConfigDict(extra="forbid")

    name: Name
    provider: ProviderName
    credentials: dict[str, Any] = {}
    config: dict[str, Any] = {}

    @classmethod
    def __get_pydantic_json_schema__(cls, _: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Return the three in place of what is only checked first."""
        return {**handler(_BY_PROVIDER.core_schema), "description": "A trunk, by its provider."}


class TrunkUpdate(Change):
    """Body of PATCH /sip/trunks/{id}; `credentials` and `config` are merged with what is there."""

    name: Lasting[Name] = None
    credentials: Annotated[Lasting[dict[str, Any]], Field(description=_CREDENTIALS)] = None
    config: Annotated[Lasting[dict[str, Any]], Field(description=_CONFIG)] = None


def parse_credentials(provider: str, given: Mapping[str, Any]) -> dict[str, str]:
    """Return the credentials of a provider's trunk, without those that are null; raise 400."""
    credentials = _validate(CREDENTIALS[provider], given, "credentials").model_dump(exclude_none=True)
    for name, other in (("username", "password"), ("password", "username")):
        if name in credentials and other not in credentials:
            raise MissingFieldError(f"credentials.{other} is required beside {name}.", field=f"credentials.{other}")
    return credentials


def parse_config(provider: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config, complete with the provider's defaults; raise 400."""
    complete = {**DEFAULT_CONFIG[provider], **given}
    if "port" not in complete:
        complete["port"] = PORTS.get(str(complete["transport"]), 5060)
    config = _validate(TrunkConfig, complete, "config").model_dump(by_alias=True)
    _check_fits(provider, config)
    return config


def merge_config(provider: str, before: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config after a change; a port that was its transport's own follows a new transport. Raises 400."""
    kept = dict(before)
    if "transport" in change and before["port"] == PORTS[before["transport"]]:
        del kept["port"]
    return parse_config(provider, {**kept, **change})


def _check_fits(provider: str, config: Mapping[str, Any]) -> None:
    """Raise 400 for what this provider's servers don't know."""
    if config["register"] and provider != "generic":
        raise InvalidParameterError(
            "config.register: only a generic trunk's server takes registrations.",
            field="config.register",
            provided=True,
        )
    for codec in config["codecs"]:
        if codec not in CODECS[provider]:
            message = f"config.codecs: {provider} takes {', '.join(CODECS[provider])}."
            raise InvalidParameterError(message, field="config.codecs", provided=codec)


def _validate(model: type[_Strict], given: Mapping[str, Any], field: str) -> _Strict:
    try:
        return model.model_validate(dict(given))
    except ValidationError as error:
        problems = [{**problem, "loc": ("body", field, *problem["loc"])} for problem in error.errors()]
        raise RequestValidationError(problems) from None


_HEAD = ("id", "name", "provider", "status")


class Health(BaseModel):
    """How the trunk's server was found when it was last asked."""

    status: Literal["unverified", "reachable", "unreachable", "auth_failed"]
    checked_at: str | None
    latency_ms: float | None
    detail: str | None


class Registration(BaseModel):
    """How one edge's registration with the trunk's server stands (RFC 3261 section 10)."""

    edge_id: str
    status: Literal["pending", "registered", "failed", "lapsed"]
    """`lapsed`: it was, and its edge has not said more since it ran out."""
    expires_at: str | None
    """Until when the server sends calls there, unless the registration is refreshed."""
    checked_at: str
    sip_code: int | None
    """The server's last answer."""
    detail: str | None
    mend: str | None


class TestStep(BaseModel):
    """One step of a test: what was seen, and how to mend it if it failed."""

    name: Literal["dns", "tcp", "tls", "options", "digest", "codecs", "register"]
    status: Literal["ok", "failed", "skipped"]
    detail: str
    mend: str | None
    duration_ms: float


class TrunkTest(BaseModel):
    """Answer to POST /sip/trunks/{id}/test; `success` if no step failed."""

    success: bool
    steps: list[TestStep]
    checked_at: str


class TrunkSummary(BaseModel):
    """A trunk as create answers with it."""

    id: str
    name: str
    provider: ProviderName
    status: str = Field(examples=["active"])
    created_at: str


class TrunkListed(TrunkSummary):
    """A trunk in a list."""

    phone_numbers_count: int


class NumberOnTrunk(BaseModel):
    """A number of a trunk."""

    id: str
    number: str
    status: str = Field(examples=["active"])


class Trunk(TrunkSummary):
    """A trunk in full. Credentials are never given back."""

    config: Annotated[dict[str, Any], Shown(TrunkConfig)]
    health: Health
    registrations: list[Registration]
    """One for each edge, where `config.register` asks for them."""
    phone_numbers: Annotated[
        list[NumberOnTrunk], Field(description="Newest first, at most 1000; list the numbers with `trunk_id` for more.")
    ]
    provisioned_at: str | None
    webhook_url: str | None = Field(
        examples=["https://voice.example.com/hooks/openai/trunk_01k9zq3v5xe8t9m2y6w4r7n1ab"]
    )
    """Where OpenAI tells us of calls; null for other providers."""
    updated_at: str


class TrunkUpdated(BaseModel):
    """A trunk as PATCH answers with it."""

    id: str
    name: str
    provider: ProviderName
    status: str = Field(examples=["active"])
    config: Annotated[dict[str, Any], Shown(TrunkConfig)]
    updated_at: str


class TrunkProvisioned(BaseModel):
    """Answer to POST /sip/trunks/{id}/provision."""

    success: Literal[True] = True
    status: Literal["provisioned"] = "provisioned"
    provisioned_at: str
    webhook_url: str = Field(examples=["https://voice.example.com/hooks/openai/trunk_01k9zq3v5xe8t9m2y6w4r7n1ab"])
    """Where OpenAI tells us of calls."""
    webhook_is_registered: bool
    """False if the API key may not manage the project's webhooks: enter `webhook_url` at OpenAI by hand then."""


def test(steps: Sequence[Step]) -> TrunkTest:
    """Return what a test answers."""
    return TrunkTest(
        success=all(step.status != "failed" for step in steps),
        steps=[TestStep(**asdict(step)) for step in steps],
        checked_at=iso(utc_now()),
    )


def summary(row: Row) -> TrunkSummary:
    """Return what create answers."""
    return TrunkSummary(**_head(row), created_at=iso(row.created_at))


def updated(row: Row) -> TrunkUpdated:
    """Return what PATCH answers."""
    return TrunkUpdated(**_head(row), config=row.config, updated_at=iso(row.updated_at))


def registration(row: Row) -> Registration:
    """Return how an edge's registration stands now."""
    has_lapsed = row.status == "registered" and row.expires_at < utc_now()
    return Registration(
        edge_id=row.edge_id,
        status="lapsed" if has_lapsed else row.status,
        expires_at=iso(row.expires_at) if row.expires_at else None,
        checked_at=iso(row.checked_at),
        sip_code=row.sip_code,
        detail=row.detail,
        mend=row.mend,
    )


def full(row: Mapping[str, Any], webhook_url: str | None) -> dict[str, Any]:
    """Return a trunk with its numbers as `Trunk` has it, for msgspec to encode."""
    return {
        **{name: row[name] for name in _HEAD},
        "config": msgspec.Raw(row["config"].encode()),
        "health": {
            "status": row["health_status"],
            "checked_at": iso(row["health_checked_at"]) if row["health_checked_at"] else None,
            "latency_ms": row["health_latency_ms"],
            "detail": row["health_detail"],
        },
        "registrations": msgspec.Raw(row["registrations"].encode()),
        "phone_numbers": msgspec.Raw(row["phone_numbers"].encode()),
        "provisioned_at": iso(row["provisioned_at"]) if row["provisioned_at"] else None,
        "webhook_url": webhook_url,
        "created_at": iso(row["created_at"]),
        "updated_at": iso(row["updated_at"]),
    }


def _head(row: Row) -> dict[str, Any]:
    return {name: getattr(row, name) for name in _HEAD}

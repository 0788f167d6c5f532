"""Bodies of this slice's public requests and answers."""

import ipaddress
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from voxpria_routing.decision import Decision, Dial
from voxpria_routing.snapshot import Trunk
from voxpria_routing.uris import request_uri

Text = Annotated[str, Field(min_length=1, max_length=128)]


def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise ValueError("an IP address") from None


class Credentials(BaseModel):
    """What the caller would answer a digest challenge with."""

    model_config = ConfigDict(extra="forbid")

    username: Text
    password: Text


class RouteTest(BaseModel):
    """Body of POST /sip/route-test: a call that nobody places."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    to: Annotated[Text, Field(description="User part of the request URI, as the carrier sends it.")]
    from_: Annotated[Text, Field(alias="from", description="User part of From.")] = "anonymous"
    source_address: Annotated[
        str, Field(max_length=64, description="IP address that the INVITE would come from."), AfterValidator(_address)
    ]
    trunk_id: Annotated[Text | None, Field(description="The `voxpria-trunk` parameter of the request URI.")] = None
    credentials: Credentials | None = None


class Explanation(BaseModel):
    """Why a call goes, or went, as it did."""

    summary: str
    tried: list[str] = Field(description="What was looked at, in order.")
    nearest: str | None = Field(description="What came closest to fitting.")
    mend: str | None = Field(description="What to do about it.")


class Target(BaseModel):
    """A server that the call would be sent to."""

    trunk_id: str
    trunk_name: str
    server: str
    port: int
    transport: Literal["udp", "tcp", "tls"]
    request_uri: str


class RouteVerdict(BaseModel):
    """What would become of the call on an edge that has nothing else to do and whose trunks' servers are all up."""

    verdict: Literal["dial", "reject"]
    direction: Literal["inbound", "outbound"]
    sip_code: int | None = Field(description="The answer to the caller; null where the called side gives it.")
    sip_reason: str | None
    cause: str | None
    to: str
    from_: str = Field(serialization_alias="from")
    phone_number_id: str | None
    trunk_id: str | None = Field(description="The trunk that the call comes in through.")
    targets: list[Target] = Field(description="Tried in this order.")
    explanation: Explanation


def verdict(decision: Decision) -> RouteVerdict:
    """Return what the API answers about a decision."""
    is_dialled = isinstance(decision, Dial)
    code, reason = (None, None) if isinstance(decision, Dial) else decision.sip_answer
    explanation = decision.explanation
    return RouteVerdict(
        verdict="dial" if is_dialled else "reject",
        direction="outbound" if decision.is_outbound else "inbound",
        sip_code=code,
        sip_reason=reason,
        cause=None if isinstance(decision, Dial) else decision.cause.value,
        to=decision.called,
        from_=decision.caller,
        phone_number_id=decision.number.id if decision.number else None,
        trunk_id=decision.carrier.id if decision.carrier else None,
        targets=[_target(t, decision.called) for t in decision.targets] if isinstance(decision, Dial) else [],
        explanation=Explanation(
            summary=explanation.summary,
            tried=list(explanation.tried),
            nearest=explanation.nearest,
            mend=explanation.mend,
        ),
    )


def _target(trunk: Trunk, called: str) -> Target:
    return Target(
        trunk_id=trunk.id,
        trunk_name=trunk.name,
        server=trunk.server,
        port=trunk.port,
        transport=trunk.transport,
        request_uri=request_uri(trunk, called),
    )

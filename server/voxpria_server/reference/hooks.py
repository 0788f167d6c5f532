"""What webhooks carry, as the OpenAPI document's `webhooks` section. A receiver answers; nothing here is served."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field

from voxpria_server.agents.schemas import Engine
from voxpria_server.calls.state import Status
from voxpria_server.trunks.schemas import ProviderName

router = APIRouter(tags=["Webhooks"])
Timestamp = Annotated[str, Field(description="When it happened, UTC.")]
EventId = Annotated[str, Field(description="The same in every attempt.", examples=["evt_01k9zq3v5xe8t9m2y6w4r7n1ab"])]


class CallData(BaseModel):
    """A call, as events show it."""

    call_id: str
    phone_number: str = Field(description="The number of yours that the call is for.")
    direction: Literal["inbound", "outbound"]
    status: Status = Field(examples=["completed"])
    duration: int = Field(description="Whole seconds from answer to end.")
    recording_url: str | None = Field(description="A link that works without a key, for a while.")
    from_: str = Field(alias="from")
    to: str
    agent_id: str | None
    sip_code: int | None = Field(description="Final SIP code of the call's INVITE.")
    end_cause: str | None
    metadata: dict[str, Any] = Field(
        default={}, description="What the call was placed with; left out if nothing.", examples=[{"order": "42"}]
    )


class NumberData(BaseModel):
    """A phone number, as events show it."""

    phone_number_id: str
    phone_number: str
    trunk_id: str
    engine: Engine | None
    agent_id: str | None
    status: Literal["active"]
    provisioned_at: str


class TrunkData(BaseModel):
    """A trunk, as events show it."""

    trunk_id: str
    name: str
    provider: ProviderName
    status: str = Field(examples=["active"])
    updated_at: str


class CallStartedEvent(BaseModel):
    """Body of `call.started`."""

    event: Literal["call.started"]
    timestamp: Timestamp
    data: CallData
    id: EventId


class CallEndedEvent(BaseModel):
    """Body of `call.ended`."""

    event: Literal["call.ended"]
    timestamp: Timestamp
    data: CallData
    id: EventId


class CallFailedEvent(BaseModel):
    """Body of `call.failed`."""

    event: Literal["call.failed"]
    timestamp: Timestamp
    data: CallData
    id: EventId


class NumberProvisionedEvent(BaseModel):
    """Body of `number.provisioned`."""

    event: Literal["number.provisioned"]
    timestamp: Timestamp
    data: NumberData
    id: EventId


class TrunkUpdatedEvent(BaseModel):
    """Body of `trunk.updated`."""

    event: Literal["trunk.updated"]
    timestamp: Timestamp
    data: TrunkData
    id: EventId


@router.post("call.started")
async def call_started(body: CallStartedEvent) -> None:
    """Tell that a call was let in and is on its way to the agent."""


@router.post("call.ended")
async def call_ended(body: CallEndedEvent) -> None:
    """Tell that a call that was answered is over."""


@router.post("call.failed")
async def call_failed(body: CallFailedEvent) -> None:
    """Tell that a call ended without an answer: refused, busy, given up, or broken."""


@router.post("number.provisioned")
async def number_provisioned(body: NumberProvisionedEvent) -> None:
    """Tell that a phone number became active: calls to it work from now on."""


@router.post("trunk.updated")
async def trunk_updated(body: TrunkUpdatedEvent) -> None:
    """Tell that a trunk's credentials or config changed; its numbers are to be provisioned anew."""

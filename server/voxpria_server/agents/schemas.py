"""Bodies of this slice's requests and answers."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from voxpria_server.kit.changes import Change, Lasting
from voxpria_server.kit.clock import iso
from voxpria_server.kit.db import Row

Engine = Literal["elevenlabs", "openai"]
Short = Annotated[str, Field(min_length=1, max_length=200)]
Name = Annotated[Short, Field(pattern=r"\S")]
Language = Annotated[str, Field(pattern=r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8}){0,3}$", description="BCP 47, as `en-US`.")]


class AgentFields(BaseModel):
    """What may be said of an agent; what is not sent stays as it is."""

    model_config = ConfigDict(extra="forbid")

    instructions: Annotated[str, Field(max_length=20_000)] | None = None
    voice: Short | None = None
    model: Short | None = None
    language: Language | None = None
    external_id: Annotated[
        Short | None, Field(description="The agent's id at the provider, where it lives there (ElevenLabs).")
    ] = None


class AgentCreate(AgentFields):
    """Body of POST /agents."""

    name: Name
    engine: Engine


class AgentUpdate(AgentFields, Change):
    """Body of PATCH /agents/{id}."""

    name: Lasting[Name] = None
    engine: Lasting[Engine] = None


class Agent(BaseModel):
    """An agent."""

    id: str
    name: str
    engine: Engine
    instructions: str | None
    voice: str | None
    model: str | None
    language: str | None
    external_id: str | None
    created_at: str
    updated_at: str


def render(row: Row) -> Agent:
    """Return the agent of a row."""
    fields = {name: value for name, value in row._asdict().items() if name in Agent.model_fields}
    return Agent(**{**fields, "created_at": iso(row.created_at), "updated_at": iso(row.updated_at)})

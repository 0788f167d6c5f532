"""/v1/agents, but for deleting one, which concerns its numbers (numbers.endpoints)."""

from typing import Annotated

from fastapi import APIRouter, Depends, Response

from voxpria_server.agents import queries, service
from voxpria_server.agents.schemas import Agent, AgentCreate, AgentUpdate, render
from voxpria_server.auth.route import KeyedRoute
from voxpria_server.auth.service import Caller, require
from voxpria_server.errors import raises
from voxpria_server.kit.answers import encode
from voxpria_server.kit.db import Connection, DatabasePart
from voxpria_server.kit.pagination import Listing, Page

router = APIRouter(prefix="/agents", tags=["Agents"], route_class=KeyedRoute)
Reader = Annotated[Caller, Depends(require("agents:read"))]
Writer = Annotated[Caller, Depends(require("agents:write"))]


@router.get("", response_model=Listing[Agent])
async def list_agents(caller: Reader, database: DatabasePart, page: Page) -> Response:
    """List agents, newest first."""
    rows, total = await queries.list_page(database, caller, page)
    return page.encode(rows, total)


@router.post("", status_code=201)
async def create_agent(caller: Writer, conn: Connection, body: AgentCreate) -> Agent:
    """Add an agent."""
    return render(await service.create(conn, caller, body))


@router.get("/{agent_id}", response_model=Agent, responses=raises("agent_not_found"))
async def get_agent(caller: Reader, database: DatabasePart, agent_id: str) -> Response:
    """Return an agent."""
    return encode(dict(await service.read(database, caller, agent_id)))


@router.patch("/{agent_id}", responses=raises("agent_not_found"))
async def update_agent(caller: Writer, conn: Connection, agent_id: str, body: AgentUpdate) -> Agent:
    """Change an agent."""
    return render(await service.update(conn, caller, agent_id, body))

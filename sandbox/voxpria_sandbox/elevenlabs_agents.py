"""The agents that the ElevenLabs fake knows, kept in one file.

A number may name others too: a client written from the API reference alone names some that nobody made.
"""

import asyncio
import json
import secrets
import time
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

_MAX_AGENTS = 1000


class AgentChange(BaseModel):
    """Body of PATCH: what is left out stays."""

    name: str | None = Field(None, min_length=1, max_length=500)
    conversation_config: dict[str, Any] | None = None


class AgentCreate(AgentChange):
    """Body of POST."""

    conversation_config: dict[str, Any]


class StoredAgent(BaseModel):
    """An agent as it is kept."""

    agent_id: str
    name: str
    conversation_config: dict[str, Any]
    created_at_unix_secs: int

    def listed(self) -> dict[str, Any]:
        """Return a line of the list."""
        return {
            "agent_id": self.agent_id,
            "name": self.name,
            "tags": [],
            "created_at_unix_secs": self.created_at_unix_secs,
            "last_call_time_unix_secs": None,
            "archived": False,
            "access_info": {"is_creator": True, "creator_name": "sandbox", "creator_email": "", "role": "admin"},
        }

    def shown(self) -> dict[str, Any]:
        """Return the agent as GET shows it."""
        return {
            "agent_id": self.agent_id,
            "name": self.name,
            "conversation_config": self.conversation_config,
            "metadata": {"created_at_unix_secs": self.created_at_unix_secs},
            "platform_settings": {},
            "phone_numbers": [],
            "tags": [],
        }


class AgentStore:
    """The agents, by id; every change is on disk before it is answered."""

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, asyncio.Lock()
        stored = json.loads(path.read_text()) if path.exists() else []
        self._agents = {each["agent_id"]: StoredAgent.model_validate(each) for each in stored}

    def all(self) -> list[StoredAgent]:
        """Return every agent, newest first."""
        return [*reversed(self._agents.values())]

    def get(self, agent_id: str) -> StoredAgent | None:
        """Return one agent."""
        return self._agents.get(agent_id)

    async def add(self, body: AgentCreate) -> StoredAgent | None:
        """Add an agent; None if there are too many."""
        if len(self._agents) >= _MAX_AGENTS:
            return None
        agent = StoredAgent(
            agent_id=f"agent_{secrets.token_hex(14)}",
            name=body.name or "New agent",
            conversation_config=body.conversation_config,
            created_at_unix_secs=int(time.time()),
        )
        self._agents[agent.agent_id] = agent
        await self._save()
        return agent

    async def change(self, agent: StoredAgent, body: AgentChange) -> StoredAgent:
        """Change what was sent."""
        self._agents[agent.agent_id] = changed = agent.model_copy(update=body.model_dump(exclude_none=True))
        await self._save()
        return changed

    async def remove(self, agent: StoredAgent) -> None:
        """Delete an agent."""
        del self._agents[agent.agent_id]
        await self._save()

    async def _save(self) -> None:
        async with self._lock:
            data = json.dumps([agent.model_dump() for agent in self._agents.values()]).encode()
            await asyncio.to_thread(_write, self._path, data)


def _write(path: Path, data: bytes) -> None:
    partial = path.with_suffix(".partial")
    partial.write_bytes(data)
    partial.replace(path)

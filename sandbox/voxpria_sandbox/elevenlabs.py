"""What the ElevenLabs fake knows: imported numbers and their SIP credentials, kept in one file.

Passwords that callers prove are kept as digest hashes only; those of outbound trunks as they are, as they answer
challenges. ElevenLabs never shows either.
"""

import asyncio
import json
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from voxpria_sandbox.accounts import ELEVENLABS_HOST, Access
from voxpria_sandbox.files import write_private
from voxpria_sandbox.sip.digest import Credentials, Secrets

_MAX_NUMBERS = 10_000


class TrunkCredentials(BaseModel):
    """Digest credentials as they are sent; a password left out on update stays as it was."""

    username: str = Field(min_length=1, max_length=256)
    password: str | None = Field(None, min_length=1, max_length=4096, repr=False)


class InboundTrunk(BaseModel):
    """`inbound_trunk_config` of a request."""

    allowed_addresses: list[str] | None = Field(None, max_length=100)
    allowed_numbers: list[str] | None = Field(None, max_length=100)
    media_encryption: str = Field("allowed", pattern="^(disabled|allowed|required)$")
    credentials: TrunkCredentials | None = None
    remote_domains: list[str] | None = Field(None, max_length=100)
    attributes_to_headers: dict[str, str] | None = Field(None, max_length=50)


class OutboundTrunk(BaseModel):
    """`outbound_trunk_config` of a request."""

    address: str = Field(min_length=1, max_length=255, pattern="^[^:/@]+(:[0-9]+)?$")
    transport: str = Field("auto", pattern="^(auto|udp|tcp|tls)$")
    media_encryption: str = Field("allowed", pattern="^(disabled|allowed|required)$")
    headers: dict[str, str] = Field(default_factory=dict, max_length=50)
    attributes_to_headers: dict[str, str] | None = Field(None, max_length=50)
    credentials: TrunkCredentials | None = None
    enabled_codecs: list[Literal["G722/8000", "PCMU/8000", "PCMA/8000"]] = Field(default_factory=list, max_length=3)


class NumberUpdate(BaseModel):
    """Body of PATCH: what is left out stays."""

    agent_id: str | None = Field(None, max_length=200)
    label: str | None = Field(None, max_length=500)
    inbound_trunk_config: InboundTrunk | None = None
    outbound_trunk_config: OutboundTrunk | None = None
    livekit_stack: Literal["standard", "static"] | None = None


class NumberImport(NumberUpdate):
    """Body of POST."""

    livekit_stack: None = None

    phone_number: str = Field(min_length=1, max_length=64)
    label: str = Field(max_length=500)
    provider: str = Field(pattern="^sip_trunk$")


class StoredNumber(BaseModel):
    """A number as it is kept."""

    model_config = ConfigDict(validate_assignment=True)

    phone_number_id: str
    phone_number: str
    label: str
    agent_id: str | None = None
    inbound: InboundTrunk | None = None
    outbound: OutboundTrunk | None = None
    username: str | None = None
    ha1: dict[str, str] = Field(default_factory=dict, repr=False)
    outbound_username: str | None = None
    outbound_password: str | None = Field(None, repr=False)
    livekit_stack: Literal["standard", "static"] = "standard"

    def update(self, change: NumberUpdate) -> None:
        """Take over what was sent; a trunk's configuration is replaced as a whole."""
        sent = change.model_fields_set
        if "agent_id" in sent:
            self.agent_id = change.agent_id
        if change.label is not None:
            self.label = change.label
        if change.livekit_stack is not None:
            self.livekit_stack = change.livekit_stack
        if change.inbound_trunk_config is not None:
            self._take_inbound(change.inbound_trunk_config)
        if change.outbound_trunk_config is not None:
            self._take_outbound(change.outbound_trunk_config)

    def _take_inbound(self, config: InboundTrunk) -> None:
        credentials = config.credentials
        if credentials is None:
            self.username, self.ha1 = None, {}
        elif credentials.password is not None:
            kept = Credentials(credentials.username, credentials.password).secrets(ELEVENLABS_HOST)
            self.username, self.ha1 = kept.username, dict(kept.ha1)
        elif credentials.username != self.username:
            raise ValueError("a new username needs its password")
        self.inbound = config.model_copy(update={"credentials": None})

    def _take_outbound(self, config: OutboundTrunk) -> None:
        credentials = config.credentials
        if credentials is None:
            self.outbound_username = self.outbound_password = None
        elif credentials.password is not None:
            self.outbound_username, self.outbound_password = credentials.username, credentials.password
        elif credentials.username != self.outbound_username:
            raise ValueError("a new username needs its password")
        self.outbound = config.model_copy(update={"credentials": None})

    @property
    def secrets(self) -> Secrets | None:
        """What checks the credentials of calls to this number."""
        return Secrets(self.username, self.ha1) if self.username else None

    def shown(self) -> dict[str, Any]:
        """Return the number as GET shows it."""
        return {
            "phone_number_id": self.phone_number_id,
            "phone_number": self.phone_number,
            "label": self.label,
            "provider": "sip_trunk",
            "supports_inbound": True,
            "supports_outbound": self.outbound is not None,
            "assigned_agent": self.agent_id and {"agent_id": self.agent_id, "agent_name": self.agent_id},
            "inbound_trunk": self.inbound
            and {
                **self.inbound.model_dump(exclude={"credentials"}),
                "has_auth_credentials": self.username is not None,
                "username": self.username,
            },
            "outbound_trunk": self.outbound
            and {
                **self.outbound.model_dump(exclude={"credentials"}),
                "has_auth_credentials": self.outbound_username is not None,
                "username": self.outbound_username,
                "has_outbound_trunk": True,
            },
            "livekit_stack": self.livekit_stack,
            "store_sip_messages": True,
        }


class NumberTakenError(Exception):
    """The number is imported already."""


class NumberStore:
    """The numbers, by id; every change is on disk before it is answered."""

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, asyncio.Lock()
        self._numbers: dict[str, StoredNumber] = {}
        if path.exists():
            for stored in json.loads(path.read_text()):
                number = StoredNumber.model_validate(stored)
                self._numbers[number.phone_number_id] = number

    def all(self) -> list[StoredNumber]:
        """Return every number, oldest first."""
        return [*self._numbers.values()]

    def get(self, number_id: str) -> StoredNumber | None:
        """Return one number."""
        return self._numbers.get(number_id)

    async def add(self, body: NumberImport) -> StoredNumber:
        """Import a number; raise NumberTakenError, or ValueError for credentials without password."""
        is_full = len(self._numbers) >= _MAX_NUMBERS
        if is_full or any(number.phone_number == body.phone_number for number in self._numbers.values()):
            raise NumberTakenError
        number = StoredNumber(
            phone_number_id=f"phnum_{secrets.token_hex(13)}", phone_number=body.phone_number, label=body.label
        )
        number.update(body)
        self._numbers[number.phone_number_id] = number
        await self._save()
        return number

    async def change(self, number: StoredNumber, change: NumberUpdate) -> None:
        """Update a number; raise ValueError for a new username without password."""
        number.update(change)
        await self._save()

    async def remove(self, number_id: str) -> bool:
        """Delete a number; return whether it was there."""
        if self._numbers.pop(number_id, None) is None:
            return False
        await self._save()
        return True

    async def _save(self) -> None:
        async with self._lock:
            data = json.dumps([number.model_dump() for number in self._numbers.values()]).encode()
            await asyncio.to_thread(write_private, self._path, data)

    def of_number(self, number: str) -> Access | None:
        """Return who may call a number; None if it is not there."""
        found = next((stored for stored in self._numbers.values() if stored.phone_number == number), None)
        if found is None:
            return None
        return Access([found.secrets]) if found.secrets else Access(is_open=True)

    def of_all(self) -> Access:
        """Return the credentials of every number."""
        return Access(_present(number.secrets for number in self._numbers.values()))


def _present(secrets_of_numbers: Iterable[Secrets | None]) -> list[Secrets]:
    return [kept for kept in secrets_of_numbers if kept is not None]

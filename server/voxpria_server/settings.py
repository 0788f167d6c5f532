"""Every setting of the control plane: environment variables with the prefix VOXPRIA_.

`main` and `worker` read them once and pass them down; nothing else looks at the environment.
"""

from functools import cached_property
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import quote

from fastapi import Depends
from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from voxpria_server.kit.parts import part


class Settings(BaseSettings):
    """Control plane: its settings, checked. A field's `description` is its documentation."""

    model_config = SettingsConfigDict(env_prefix="VOXPRIA_", frozen=True, extra="ignore")

    data_dir: Path = Field(default=Path("var"), description="Folder of everything that is kept on this machine.")
    run_dir: Path | None = Field(default=None, description="Folder of unix sockets. Default: `run` in the data folder.")
    database_url: SecretStr = Field(
        default=SecretStr(""),
        description="PostgreSQL, `postgresql://…`. Default: the embedded one, by its unix socket.",
    )
    database_pool_size: int = Field(
        default=10, ge=1, le=200, description="Connections a process keeps; as many more may be opened under load."
    )
    database_wait_seconds: float = Field(default=60, gt=0, description="How long a start waits for the database.")
    http_address: str = Field(default="127.0.0.1", description="Address that the API listens on.")
    http_port: int = Field(default=8000, ge=1, le=65535, description="Port that the API listens on.")
    public_url: str = Field(
        default="", description="How the outside reaches the API (links to recordings). Default: itself."
    )
    sip_port: int = Field(
        default=5060, ge=1, le=65535, description="SIP port (udp, tcp); also that of the sandbox's agent."
    )
    sip_tls_port: int = Field(
        default=5061, ge=1, le=65535, description="SIP port over TLS; also that of the sandbox's agent."
    )
    sip_address: str = Field(
        default="127.0.0.1",
        description="Address of the edge. If it is a public one, or VOXPRIA_SIP_NAME is set, ElevenLabs is told to send"
        " the calls there that its agents place.",
    )
    sip_name: str | None = Field(default=None, description="Name in DNS of the edges' addresses.")
    sandbox: bool = Field(
        default=False, description="Take the documented test key, and stand-ins for every provider in test mode."
    )
    sandbox_address: str = Field(
        default="127.0.0.2", description="Address of the sandbox's SIP agent and provider fakes."
    )
    sandbox_carrier_address: str = Field(
        default="127.0.0.3", description="Address that the sandbox's carrier calls from."
    )
    recordings_url: str = Field(
        default="",
        description="Where recordings are kept: `s3://…`, `gs://…`, `az://…` or `file:///…`. Default: the data folder.",
    )
    recording_max_bytes: int = Field(
        default=512 * 1024 * 1024, ge=1024, description="Largest recording that is taken from an edge."
    )
    recording_days: int = Field(
        default=90, ge=1, le=36500, description="How long recordings are kept; deleted within an hour after that."
    )
    trace_days: int = Field(
        default=30, ge=1, le=36500, description="How long the SIP messages of calls are kept; deleted as recordings."
    )
    recording_link_seconds: int = Field(
        default=24 * 3600, ge=60, le=30 * 24 * 3600, description="How long a link to a recording works."
    )
    allow_private_webhooks: bool | None = Field(
        default=None,
        description="Deliver webhooks to private and loopback addresses too. Default: only where the sandbox is on.",
    )
    allow_private_trunks: bool | None = Field(
        default=None,
        description="Let trunks' servers be at private addresses (a PBX in the same network). Default: only where the"
        " sandbox is on. Elsewhere health checks and tests of a trunk refuse them, as they would show what is inside.",
    )
    sandbox_hosts: str = Field(
        default="api.sandbox.voxpria.com",
        description="Host names (of the Host header), comma-separated, under which live keys are refused; `*` is any.",
    )
    trusted_proxies: str = Field(
        default="",
        description="Addresses or networks, comma-separated, of proxies whose X-Forwarded-For is believed. A client's"
        " address is else that of its socket; keys may be bound to addresses.",
    )
    requests_per_hour: int = Field(
        default=1000, ge=1, description="Requests an hour that an account may make in a mode; its plan may say another."
    )
    imports_per_minute: int = Field(
        default=10, ge=1, description="Numbers a minute that an account may import in a mode; its plan may say another."
    )
    webhook_attempts_per_minute: int = Field(
        default=100,
        ge=1,
        le=1_000_000,
        description="Attempts of webhook deliveries for each account and mode; its plan may say another. More wait.",
    )
    account_max_concurrent_calls: int | None = Field(
        default=None,
        ge=1,
        description="Calls an account may have open at once in one mode, on one edge; its plan may say another."
        " Default: any.",
    )
    account_max_calls_per_second: float | None = Field(
        default=None,
        gt=0,
        description="Calls that may begin a second for an account in one mode, on one edge; its plan may say another.",
    )
    metrics_token: SecretStr = Field(
        default=SecretStr(""),
        description="Bearer token that Prometheus shows at `/metrics`. Default: none, and only this machine may ask.",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="Least level that is logged."
    )

    @field_validator("sip_address")
    @classmethod
    def _check_address(cls, text: str) -> str:
        ip_address(text)
        return text

    @field_validator("trusted_proxies")
    @classmethod
    def _check_networks(cls, text: str) -> str:
        for network in _split(text):
            ip_network(network)
        return text

    @model_validator(mode="after")
    def _derive(self) -> Self:
        run_dir = self.run_dir or self.data_dir / "run"
        socket = quote(str((run_dir / "postgres").absolute()), safe="/")
        derived = {
            "run_dir": run_dir,
            "database_url": self.database_url
            if self.database_url.get_secret_value()
            else SecretStr(f"postgresql://voxpria@/voxpria?host={socket}"),
            "public_url": (self.public_url or f"http://{self.http_address}:{self.http_port}").rstrip("/"),
        }
        for name, value in derived.items():
            object.__setattr__(self, name, value)
        return self

    def is_sandbox_host(self, host: str) -> bool:
        """Tell whether the sandbox is asked, by a Host header (RFC 9110 section 7.2)."""
        name = host.partition(":")[0].rstrip(".").lower()
        return not self._sandbox_hosts.isdisjoint({"*", name})

    @cached_property
    def _sandbox_hosts(self) -> frozenset[str]:
        return frozenset(_split(self.sandbox_hosts.lower()))

    @property
    def docs_url(self) -> str:
        """Where the outside finds the reference."""
        return f"{self.public_url}/docs"

    @property
    def master_key_file(self) -> Path:
        """File of the key that seals credentials at rest; see `kit.sealing`."""
        return self.data_dir / "secrets" / "master_key"

    @property
    def edge_token_file(self) -> Path:
        """File of the token that edges show."""
        return self.data_dir / "secrets" / "edge_token"

    @property
    def private_webhooks_are_allowed(self) -> bool:
        """True where webhooks may go to private addresses."""
        return self.sandbox if self.allow_private_webhooks is None else self.allow_private_webhooks

    @property
    def sandbox_authority_file(self) -> Path:
        """File of the sandbox's own certificate authority, which it makes at its first start."""
        return self.data_dir / "sandbox" / "authority.pem"

    @property
    def private_trunks_are_allowed(self) -> bool:
        """True where trunks' servers may be at private addresses."""
        return self.sandbox if self.allow_private_trunks is None else self.allow_private_trunks

    @property
    def sandbox_url(self) -> str:
        """Base URL of the sandbox's HTTP server."""
        return f"http://{self.sandbox_address}:{self.http_port}"


def _split(text: str) -> list[str]:
    return [word for raw in text.split(",") if (word := raw.strip())]


SettingsPart = Annotated[Settings, Depends(part("settings"))]

"""What the sandbox is told, by environment variables."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

SOFTWARE = "VoxPria-Sandbox (simulation)"
"""What Server and User-Agent say: nobody should take this for a carrier or a provider."""


class Settings(BaseSettings):
    """Settings of the sandbox. Each is read from the environment as `VOXPRIA_<NAME>`."""

    model_config = SettingsConfigDict(env_prefix="VOXPRIA_", frozen=True)

    data_dir: Path = Field(Path("var"), description="Folder of everything that is kept; ours is `sandbox` in it.")
    http_port: int = Field(8000, ge=1, le=65535, description="TCP port of the sandbox's HTTP, and of the API.")
    http_address: str = Field("127.0.0.1", description="Address of the API, to say where a call's record is.")
    public_url: str | None = Field(None, description="The API's URL. Default: its address and port.")
    sip_address: str = Field("127.0.0.1", description="Address of the edge, which the carrier calls.")
    sip_name: str | None = Field(None, description="Name of the edge, as it stands in outbound trunks.")
    sip_port: int = Field(5060, ge=1, le=65535, description="SIP port (udp, tcp) of the edge, and of our SIP agent.")
    sip_tls_port: int = Field(5061, ge=1, le=65535, description="SIP port over TLS of our SIP agent.")
    sandbox_address: str = Field("127.0.0.2", description="Address of the SIP agent and of the HTTP.")
    sandbox_carrier_address: str = Field("127.0.0.3", description="Address that the carrier calls from.")

    @property
    def folder(self) -> Path:
        """Where the sandbox keeps its things."""
        return self.data_dir.absolute() / "sandbox"

    @property
    def edge_names(self) -> frozenset[str]:
        """What means the edge of this machine in an outbound trunk."""
        return frozenset(filter(None, (self.sip_address, self.sip_name)))

    @property
    def url(self) -> str:
        """Where the sandbox's HTTP is."""
        return f"http://{self.sandbox_address}:{self.http_port}"

    @property
    def local_api_url(self) -> str:
        """Where the API is, seen from this machine."""
        return f"http://{self.http_address}:{self.http_port}"

    @property
    def api_url(self) -> str:
        """Where the API is."""
        return self.public_url or f"http://{self.http_address}:{self.http_port}"

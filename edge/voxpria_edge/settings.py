"""What the edge is told, by environment variables."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

SYSTEM_AUTHORITIES = Path("/etc/ssl/certs")
"""Where the system keeps the certificates of authorities that it trusts."""


class Settings(BaseSettings):
    """SIP edge: the settings of Kamailio, rtpengine and the agent. Each is read as `VOXPRIA_<NAME>`."""

    model_config = SettingsConfigDict(env_prefix="VOXPRIA_", frozen=True)

    data_dir: Path = Field(Path("var"), description="Folder of everything that is kept.")
    run_dir: Path = Field(Path("var/run"), description="Folder of unix sockets; its path at most 80 bytes.")
    api_url: str = Field("http://127.0.0.1:8000", description="Where the control plane is.")
    sip_address: str = Field("127.0.0.1", description="Address that SIP is taken on.")
    sip_address_v6: str | None = Field(None, description="IPv6 address that SIP is taken on besides.")
    sip_name: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$",
        description="Name in DNS of these addresses, shown to each side in place of the other's. Default: an address.",
    )
    sip_port: int = Field(5060, ge=1, le=65535, description="SIP port, UDP and TCP; on the control address: evapi, ng.")
    sip_tls_port: int = Field(5061, ge=1, le=65535, description="SIP port, TLS.")
    media_address: str = Field("127.0.0.1", description="Address that media is relayed on.")
    media_address_v6: str | None = Field(None, description="IPv6 address that media is relayed on besides.")
    media_port_min: int = Field(30000, ge=1024, le=65535, description="Lowest UDP port for media.")
    media_port_max: int = Field(39999, ge=1024, le=65535, description="Highest UDP port for media.")
    control_address: str = Field("127.0.0.4", description="Loopback address on which the edge's parts talk.")
    ring_timeout_seconds: int = Field(60, ge=1, le=300, description="How long the called side may ring.")
    media_timeout_seconds: int = Field(60, ge=5, le=3600, description="Silence on both sides after which a call ends.")

    stranger_requests_per_second: int = Field(
        20,
        ge=1,
        le=100_000,
        description="SIP requests looked at, a second, of one address that no trunk allows or has let in.",
    )
    strangers_requests_per_second: int = Field(
        500, ge=1, le=100_000, description="The same of all such addresses together."
    )
    stranger_connection_seconds: int = Field(
        60,
        ge=1,
        description="How long a TCP or TLS connection stays on which no side that is known has said anything.",
    )
    health_seconds: int = Field(
        60, ge=1, le=3600, description="How often a trunk's server is asked how it is, while it answers."
    )
    allow_private_trunks: bool | None = Field(
        None,
        description="Let live calls go to trunks' servers at private, local and reserved addresses. Default: only where"
        " the sandbox is on. Set it as the control plane has it.",
    )
    sandbox: bool = Field(False, description="Whether the sandbox runs here; its authority is then trusted.")

    @property
    def private_trunks_are_allowed(self) -> bool:
        """True where trunks' servers may be at private addresses."""
        return self.sandbox if self.allow_private_trunks is None else self.allow_private_trunks

    @property
    def folder(self) -> Path:
        """The edge's own part of the data folder."""
        return self.data_dir.absolute() / "edge"

    @property
    def captures(self) -> Path:
        """Where rtpengine writes captured calls."""
        return self.folder / "captures"

    @property
    def allowed_file(self) -> Path:
        """Where Kamailio reads which addresses trunks allow (`allowed`)."""
        return self.folder / "allowed.list"

    @property
    def sandbox_authority(self) -> Path:
        """The certificate of the sandbox's own authority, which the sandbox makes when it first starts."""
        return self.data_dir.absolute() / "sandbox" / "authority.pem"

    @property
    def trace_address(self) -> tuple[str, int]:
        """Where Kamailio mirrors its messages to (HEP over UDP): the TLS port's number, which is TCP, is free there."""
        return self.control_address, self.sip_tls_port

    @property
    def edge_token_file(self) -> Path:
        """The file that holds the token for the control plane's edge API."""
        return self.data_dir.absolute() / "secrets" / "edge_token"

    @property
    def kamailio_socket(self) -> Path:
        """Kamailio's JSON-RPC socket (unix datagram)."""
        return self.run_dir.absolute() / "kamailio.sock"

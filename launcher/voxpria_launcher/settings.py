"""What one machine's instance is told, and what it tells its parts; all by environment variables."""

import hashlib
import os
import tempfile
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

_LONGEST_RUN_DIR = 80
"""A unix socket's path holds 107 bytes (unix(7)); the longest name below the run folder takes 24."""


class Settings(BaseSettings):
    """Settings of an instance. Each is read from the environment as `VOXPRIA_<NAME>`.

    Every role has a loopback address of its own, so that two instances need only other ports and folders.
    """

    model_config = SettingsConfigDict(env_prefix="VOXPRIA_", frozen=True)

    data_dir: Path = Field(Path("var"), description="Folder of everything that is kept.")
    run_dir: Path | None = Field(
        None,
        description="Folder of unix sockets. Default: `run` in the data folder, or a short one if that is too long.",
    )
    database_url: str | None = Field(
        None, description="A PostgreSQL to use. Default: an embedded one in the data folder."
    )
    http_address: str = Field("127.0.0.1", description="Address the API listens on.")
    http_port: int = Field(8000, ge=1, le=65535, description="TCP port of the API, and of the sandbox's own HTTP.")
    public_url: str | None = Field(
        None, description="How the API is reached from outside. Default: its address and port."
    )
    sip_address: str = Field("127.0.0.1", description="Address the SIP edge listens on.")
    sip_address_v6: str | None = Field(None, description="IPv6 address the SIP edge listens on besides.")
    sip_name: str | None = Field(None, description="Name in DNS of these addresses, shown to each side of a call.")
    sip_port: int = Field(5060, ge=1, le=65535, description="SIP port, UDP and TCP.")
    sip_tls_port: int = Field(5061, ge=1, le=65535, description="SIP port, TLS.")
    media_address: str | None = Field(
        None,
        description="Address rtpengine relays media on. Default: the SIP address; on loopback one that follows from "
        "the SIP port, as two rtpengines on one address would take each other's packets unnoticed.",
    )
    media_address_v6: str | None = Field(
        None,
        description="IPv6 address rtpengine relays media on besides. Default: the IPv6 SIP address, if there is one.",
    )
    media_port_min: int = Field(30000, ge=1024, le=65535, description="Lowest UDP port for media.")
    media_port_max: int = Field(39999, ge=1024, le=65535, description="Highest UDP port for media.")
    control_address: str = Field("127.0.0.4", description="Loopback address on which the edge's parts talk.")
    stranger_requests_per_second: int = Field(
        20, ge=1, le=100_000, description="SIP requests looked at, a second, of one address that no trunk has let in."
    )
    strangers_requests_per_second: int = Field(
        500, ge=1, le=100_000, description="The same of all such addresses together."
    )
    sandbox: bool = Field(True, description="Whether the sandbox runs and the documented test key works.")
    sandbox_address: str = Field("127.0.0.2", description="Address of the sandbox's SIP agent and HTTP.")
    sandbox_carrier_address: str = Field("127.0.0.3", description="Address the sandbox's carrier calls from.")

    @property
    def data(self) -> Path:
        """The data folder, absolute."""
        return self.data_dir.absolute()

    @property
    def run(self) -> Path:
        """The folder of unix sockets, short enough for their paths."""
        if self.run_dir is not None:
            return self.run_dir.absolute()
        wanted = self.data / "run"
        if len(os.fsencode(wanted)) <= _LONGEST_RUN_DIR:
            return wanted
        digest = hashlib.sha256(os.fsencode(self.data)).hexdigest()[:12]
        return Path("/run" if os.geteuid() == 0 else tempfile.gettempdir()) / f"voxpria-{os.geteuid()}-{digest}"

    @property
    def media(self) -> str:
        """The address of media."""
        if self.media_address is not None:
            return self.media_address
        if self.sip_address != "127.0.0.1":
            return self.sip_address
        return f"127.1.{self.sip_port >> 8}.{self.sip_port & 255}"

    @property
    def api_url(self) -> str:
        """Where the API is, seen from this machine."""
        return f"http://{_bracketed(self.http_address)}:{self.http_port}"

    @property
    def sandbox_url(self) -> str:
        """Where the sandbox's own HTTP is."""
        return f"http://{_bracketed(self.sandbox_address)}:{self.http_port}"

    def environment(self) -> dict[str, str]:
        """Return the whole environment for a part: ours, and every setting resolved."""
        resolved = {
            **self.model_dump(exclude={"data_dir", "run_dir", "database_url", "public_url", "media_address"}),
            "data_dir": self.data,
            "run_dir": self.run,
            "database_url": self.database_url or f"postgresql://voxpria@/voxpria?host={self.run / 'postgres'}",
            "public_url": self.public_url or self.api_url,
            "api_url": self.api_url,
            "media_address": self.media,
            "media_address_v6": self.media_address_v6 or self.sip_address_v6,
        }
        given = {f"VOXPRIA_{name.upper()}": str(value) for name, value in resolved.items() if value is not None}
        return {**os.environ, **given}


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address

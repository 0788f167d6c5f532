"""The instance's own secrets: made once, kept in files that only their owner reads."""

import base64
import os
import secrets
from pathlib import Path


def ensure(data: Path) -> None:
    """Make `secrets/edge_token` and `secrets/master_key` below the data folder where they are missing."""
    folder = data / "secrets"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _ensure_file(folder / "edge_token", secrets.token_urlsafe(32))
    _ensure_file(folder / "master_key", base64.b64encode(secrets.token_bytes(32)).decode())


def _ensure_file(path: Path, line: str) -> None:
    """Write the file whole or not at all: half a key would lock everything sealed with it away."""
    if path.exists():
        return
    unfinished = path.with_suffix(".new")
    unfinished.unlink(missing_ok=True)
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(line + "\n")
        file.flush()
        os.fsync(file.fileno())
    unfinished.rename(path)

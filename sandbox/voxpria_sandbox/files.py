"""Files that outlive the sandbox."""

import os
from pathlib import Path


def write_private(path: Path, data: bytes) -> None:
    """Replace a file that only we may read, whole or not at all; it is on disk when this returns. Raises OSError."""
    partial = path.with_suffix(".partial")
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)

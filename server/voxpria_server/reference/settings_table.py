"""docs/settings.md, made of the settings themselves; `./run openapi` renews it.

    python -m voxpria_server.reference.settings_table FILE MODULE…

Each module has a class `Settings`; its docstring heads its table. The edge is not ours to import, so it is named there.
"""

import importlib
import sys
from collections.abc import Iterable
from pathlib import Path

from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

_HEAD = """# Settings

Environment variables, read once at the start. What `./run` starts gets all of them from its own environment.
"""

_TAIL = """## Traces

API, workers and edges send OpenTelemetry traces where the standard variables say so, as OTLP over HTTP with protobuf,
and only then: `OTEL_EXPORTER_OTLP_ENDPOINT` (or `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`), `OTEL_EXPORTER_OTLP_HEADERS`,
`OTEL_SERVICE_NAME` (default: `voxpria-api`, `voxpria-worker`, `voxpria-edge`), `OTEL_RESOURCE_ATTRIBUTES`,
`OTEL_TRACES_SAMPLER`, `OTEL_BSP_MAX_QUEUE_SIZE` and the SDK's others. `OTEL_SDK_DISABLED=true` turns them off.
"""


def page(modules: Iterable[str]) -> str:
    """Return the page: a table a module."""
    return "\n".join([_HEAD, *(_table(importlib.import_module(module).Settings) for module in modules), _TAIL])


def _table(settings: type[BaseSettings]) -> str:
    rows = [
        f"| `VOXPRIA_{name.upper()}` | {_default(field)} | {field.description} |"
        for name, field in sorted(settings.model_fields.items())
    ]
    title = (settings.__doc__ or "").partition(":")[0].partition(".")[0]
    return "\n".join([f"## {title}\n", "| variable | default | |", "|---|---|---|", *rows, ""])


def _default(field: FieldInfo) -> str:
    value = field.default.get_secret_value() if isinstance(field.default, SecretStr) else field.default
    return "" if value in (None, "") else f"`{str(value).lower() if isinstance(value, bool) else value}`"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(sys.argv[2:]))

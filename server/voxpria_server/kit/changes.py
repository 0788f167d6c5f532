"""Bodies of PATCH: what is not sent stays as it is.

class TrunkUpdate(Change):
    name: Lasting[Name] = None             # there always is one: null is refused
    note: Annotated[str, …] | None = None  # null takes it away
"""

from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

T = TypeVar("T")


def _without_defaults(schema: dict[str, Any]) -> None:
    """Name no defaults: a client made from the document would send them, and so change what nobody spoke of."""
    for field in schema.get("properties", {}).values():
        field.pop("default", None)


class Change(BaseModel):
    """A body of PATCH; `model_fields_set` says what was sent."""

    model_config = ConfigDict(extra="forbid", json_schema_extra=_without_defaults)


def _refuse_null(value: Any) -> Any:  # noqa: ANN401  (whatever came)
    if value is None:
        raise ValueError("can be changed, not removed")
    return value


class _NeverNull:
    """Has the document say what `_refuse_null` does."""

    def __get_pydantic_json_schema__(self, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        choices: list[JsonSchemaValue] = handler(core_schema)["anyOf"]
        (sent,) = (choice for choice in choices if choice != {"type": "null"})
        return sent


Lasting = Annotated[T | None, BeforeValidator(_refuse_null), _NeverNull()]
"""The type of a field that there always is: None while it is not sent."""

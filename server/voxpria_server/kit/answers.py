"""Answers that every slice gives."""

from typing import Literal

import msgspec
from fastapi import Response
from pydantic import BaseModel, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema
from pydantic_core.core_schema import list_schema


class Done(BaseModel):
    """It is done."""

    success: Literal[True] = True
    message: str


class Shown:
    """Has the document say that a value is as a model says, which is not looked at when it is sent.

    config: Annotated[dict[str, Any], Shown(TrunkConfig)]
    """

    def __init__(self, model: type[BaseModel]) -> None:
        self._model = model

    def __get_pydantic_json_schema__(self, _: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Return a reference to the model's schema in place of the value's; one is made of what lies within another."""
        reference: JsonSchemaValue = handler(list_schema(self._model.__pydantic_core_schema__))["items"]
        return reference


class _Json(Response):
    """An answer in JSON that is written already. Starlette's own begins by asking what it is."""

    def __init__(self, body: bytes) -> None:
        self.status_code, self.body, self.background = 200, body, None
        self.raw_headers = [(b"content-length", b"%d" % len(body)), (b"content-type", b"application/json")]


def encode(body: object) -> Response:
    """Return an answer whose body msgspec writes as it is: where FastAPI's way through a model takes too long."""
    return _Json(msgspec.json.encode(body))

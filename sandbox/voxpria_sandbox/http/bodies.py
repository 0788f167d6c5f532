"""JSON bodies: validated, or refused in the shape that ElevenLabs and FastAPI give (422 with a list of details)."""

import json
from typing import Any, TypeVar

from aiohttp import web
from pydantic import BaseModel, ValidationError

Body = TypeVar("Body", bound=BaseModel)


async def read(request: web.Request, model: type[Body]) -> Body:
    """Return the request's body; raise a 422 that says what is wrong with it."""
    try:
        return model.model_validate_json(await request.read())
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        details: list[dict[str, Any]] = [{**item, "loc": ["body", *item["loc"]]} for item in found]
        raise refusal(web.HTTPUnprocessableEntity, details) from error


def refusal(status: type[web.HTTPError], detail: object) -> web.HTTPError:
    """Return an HTTP error whose body is `{"detail": ...}`."""
    return status(text=json.dumps({"detail": detail}), content_type="application/json")

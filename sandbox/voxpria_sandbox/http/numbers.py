"""`/sip/numbers`: the test SIP server takes a number on."""

from aiohttp import web
from pydantic import BaseModel, Field

from voxpria_sandbox.http import bodies
from voxpria_sandbox.numbers import NumberRefusedError, take_on


class Number(BaseModel):
    """Body of `POST /sip/numbers`."""

    phone_number: str = Field(pattern=r"^\+[1-9][0-9]{6,14}$")


def routes(slow_seconds: float) -> list[web.RouteDef]:
    """Return the routes."""

    async def add(request: web.Request) -> web.Response:
        body = await bodies.read(request, Number)
        try:
            await take_on(body.phone_number, slow_seconds)
        except NumberRefusedError as error:
            raise bodies.refusal(web.HTTPUnprocessableEntity, str(error)) from error
        return web.json_response({"phone_number": body.phone_number})

    return [web.post("/sip/numbers", add)]

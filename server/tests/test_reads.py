"""The quick way of a GET gives what FastAPI's own way gives."""

from typing import Annotated

import httpx2
import pytest
from fastapi import APIRouter, Depends, FastAPI, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from hypothesis import given, settings
from hypothesis import strategies as st
from voxpria_server.calls.endpoints import router as calls
from voxpria_server.kit.pagination import Page
from voxpria_server.kit.reads import Reads, plan_of
from voxpria_server.kit.routes import Route
from voxpria_server.main import create_app
from voxpria_server.settings import Settings

pytestmark = pytest.mark.unit


class QuickRoute(Route):
    def get_route_handler(self):
        plan = plan_of(self.dependant)
        self.read = self.strictly(plan.answer) if plan else None
        return super().get_route_handler()


router = APIRouter(route_class=QuickRoute)


async def _asked(request: Request, word: Annotated[str, Query(min_length=2)], flag: bool = False) -> dict:
    return {"method": request.method, "word": word, "flag": flag}


@router.get("/things")
async def list_things(page: Page, asked: Annotated[dict, Depends(_asked)]) -> Response:
    return JSONResponse({"page": page.page, "per_page": page.per_page, "after": page.starting_after, **asked})


@router.get("/things/{thing_id}")
async def get_thing(thing_id: Annotated[str, Path(max_length=4)], count: int | None = None) -> Response:
    if thing_id == "gone":
        raise LookupError(thing_id)
    return JSONResponse({"id": thing_id, "count": count})


@router.get("/things/{thing_id}/slow")
async def get_slowly(thing_id: str) -> dict:
    return {"id": thing_id}


async def _lost(_request: Request, error: Exception) -> Response:
    return JSONResponse({"lost": str(error)}, status_code=410)


async def _wrong(_request: Request, error: Exception) -> Response:
    found = [{"type": each["type"], "loc": list(each["loc"])} for each in error.errors()]
    return JSONResponse(found, status_code=400)


def app_of(*, is_quick: bool) -> FastAPI:
    app = FastAPI()
    app.add_exception_handler(LookupError, _lost)
    app.add_exception_handler(RequestValidationError, _wrong)

    async def render(request: Request, error: Exception) -> Response:
        return await (_lost if isinstance(error, LookupError) else _wrong)(request, error)

    if is_quick:
        app.add_middleware(Reads, render=render, rendered=(LookupError, RequestValidationError))
    app.include_router(router)
    return app


QUICK, USUAL = app_of(is_quick=True), app_of(is_quick=False)
NAMES = st.sampled_from(["page", "per_page", "starting_after", "word", "flag", "count", "other"])
VALUES = st.one_of(st.sampled_from(["", "1", "0", "-1", "101", "true", "off", "é", "\x00"]), st.text(max_size=5))
PATHS = st.sampled_from(["/things", "/things/", "/things/a", "/things/gone", "/things/a%2Fb", "/things/a/slow", "/x"])


async def answer(app: FastAPI, method: str, path: str, query: list[tuple[str, str]]) -> tuple:
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://t") as client:
        answer = await client.request(method, path, params=query)
    return answer.status_code, answer.headers.get("content-type"), answer.content


@settings(deadline=None, max_examples=200)
@given(st.sampled_from(["GET", "GET", "POST"]), PATHS, st.lists(st.tuples(NAMES, VALUES), max_size=4))
async def test_both_ways_answer_alike(method, path, query):
    assert await answer(QUICK, method, path, query) == await answer(USUAL, method, path, query)


def test_what_takes_more_goes_the_usual_way():
    routes = {route.path: route.read is not None for route in router.routes}
    assert routes == {"/things": True, "/things/{thing_id}": True, "/things/{thing_id}/slow": False}


def test_the_lists_of_calls_go_the_quick_way():
    quick = {route.path for route in calls.routes if getattr(route, "read", None)}
    assert {"/calls", "/calls/{call_id}"} <= quick


@pytest.mark.parametrize("path", ["/things/gone", "/broken"])
async def test_what_nobody_foresaw_is_answered_as_any_error(tmp_path, path):
    settings = Settings(data_dir=tmp_path)
    app = create_app(settings)
    app.state.settings = settings
    app.include_router(router)
    app.add_api_route("/broken", _raise)
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://t") as client:
        answer = await client.get(path)
    assert answer.status_code == 500
    assert answer.json()["error"]["code"] == "server_error"
    assert answer.json()["error"]["request_id"] == answer.headers["X-Request-Id"]


async def _raise() -> None:
    raise LookupError

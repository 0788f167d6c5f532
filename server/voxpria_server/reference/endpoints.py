"""/v1/openapi.json, /docs, /status: what tells people and programs about the API. None of it takes a key."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse

from voxpria_server.errors import NotFoundError
from voxpria_server.kit.routes import Route
from voxpria_server.reference import openapi, pages, status
from voxpria_server.settings import SettingsPart

router = APIRouter(route_class=Route, include_in_schema=False)
_FOR_A_WHILE = {"Cache-Control": "max-age=300"}


@router.get("/")
@router.get("/v1")
async def get_root(request: Request) -> RedirectResponse:
    """Lead a browser to the reference; to programs there is nothing here."""
    if "text/html" not in request.headers.get("accept", ""):
        raise NotFoundError("There is nothing at this path.", headers={"Vary": "Accept"})
    return RedirectResponse("/docs", headers={"Vary": "Accept"})


@router.get("/v1/openapi.json")
async def get_openapi_document() -> Response:
    """Return the OpenAPI document."""
    return Response(openapi.dump(), media_type="application/json", headers=_FOR_A_WHILE)


@router.get("/docs")
async def get_reference(settings: SettingsPart) -> HTMLResponse:
    """Return the reference."""
    return HTMLResponse(pages.reference(settings.public_url), headers=pages.HEADERS)


@router.get("/docs/style.css")
async def get_style() -> Response:
    """Return the stylesheet."""
    return Response(pages.style(), media_type="text/css", headers=pages.HEADERS | _FOR_A_WHILE)


@router.get("/docs/icon.svg")
async def get_icon() -> Response:
    """Return the icon."""
    return Response(pages.icon(), media_type="image/svg+xml", headers=pages.HEADERS | _FOR_A_WHILE)


@router.get("/docs/guides")
async def get_guides() -> HTMLResponse:
    """Return the list of guides."""
    return HTMLResponse(pages.list_of_guides(), headers=pages.HEADERS)


@router.get("/docs/guides/{name}")
async def get_guide(name: str) -> HTMLResponse:
    """Return a guide."""
    page = pages.guide(name)
    if page is None:
        raise NotFoundError("There is nothing at this path.")
    return HTMLResponse(page, headers=pages.HEADERS)


@router.get("/status")
async def get_status(request: Request) -> Response:
    """Return the status page; as JSON to who asks for that."""
    if "application/json" in request.headers.get("accept", ""):
        return await get_status_json(request)
    now = await status.current(request)
    page = pages.render("status.html", status=now, words=status.WORDS, names=status.NAMES)
    return HTMLResponse(page, headers=pages.HEADERS | {"Cache-Control": "no-store", "Vary": "Accept"})


@router.get("/status.json")
async def get_status_json(request: Request) -> Response:
    """Return the status as JSON."""
    return JSONResponse(await status.current(request), headers={"Cache-Control": "no-store", "Vary": "Accept"})

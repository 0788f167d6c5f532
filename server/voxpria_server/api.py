"""Every public router, on one screen."""

from fastapi import APIRouter

from voxpria_server import metrics, readiness
from voxpria_server.agents import endpoints as agents
from voxpria_server.calls import endpoints as calls
from voxpria_server.edge_api import endpoints as edge_api
from voxpria_server.numbers import endpoints as numbers
from voxpria_server.provider_hooks import endpoints as provider_hooks
from voxpria_server.routing import endpoints as routing
from voxpria_server.trunks import endpoints as trunks
from voxpria_server.webhooks import endpoints as webhooks

v1 = APIRouter(prefix="/v1")
v1.include_router(trunks.router)
v1.include_router(numbers.trunk_router)
v1.include_router(routing.router)
v1.include_router(numbers.router)
v1.include_router(agents.router)
v1.include_router(numbers.agent_router)
v1.include_router(calls.router)
v1.include_router(webhooks.router)

BODY_LIMITS = {f"{v1.prefix}{numbers.BULK_PATH}": numbers.BULK_MAX_BYTES}
"""The longest bodies, in bytes, of the paths that have a limit of their own."""

edge = edge_api.router
hooks = provider_hooks.router
probes = APIRouter()
probes.include_router(readiness.router)
probes.include_router(metrics.router)

"""The way into every endpoint that takes an API key: key, limits, permission, only then the body; and once only.

A router of such endpoints is made with `route_class=KeyedRoute`. FastAPI reads and parses the body before it asks the
dependencies; here nobody without a key gets that far, and every answer behind the key carries its limits.
"""

from collections.abc import Iterator

from fastapi import Request
from fastapi.dependencies.models import Dependant
from fastapi.responses import Response

from voxpria_server.auth import idempotency
from voxpria_server.auth.idempotency import Handler
from voxpria_server.auth.limits import import_allowance
from voxpria_server.auth.service import Permission, authenticate
from voxpria_server.kit.db import request_database, request_transaction
from voxpria_server.kit.reads import plan_of
from voxpria_server.kit.routes import Route


class KeyedRoute(Route):
    """A route that lets only those in whose key has the permission that its endpoint requires.

    `read` is there if it can do without FastAPI's machinery; see `kit.reads`.
    """

    read: Handler | None = None

    def get_route_handler(self) -> Handler:
        """Return FastAPI's handler, behind the key; one that requires no permission (a signed link) as it is."""
        handler = super().get_route_handler()
        calls = list(_calls(self.dependant))
        permission = next((call for call in calls if isinstance(call, Permission)), None)
        if permission is None:
            return handler
        counts_imports = import_allowance in calls
        answer_once = idempotency.answer_once
        if request_transaction not in calls and request_database not in calls:
            answer_once = idempotency.answer_alike

        def keyed(handle: Handler) -> Handler:
            async def handle_keyed(request: Request) -> Response:
                caller = await authenticate(request, permission.scope, counts_imports=counts_imports)
                request.state.caller = caller
                if request.method == "POST" and idempotency.HEADER in request.headers:
                    return await answer_once(request, caller, handle)
                return await handle(request)

            return handle_keyed

        if self.methods == {"GET"} and (plan := plan_of(self.dependant)) is not None:
            self.read = keyed(self.strictly(plan.answer))
        return keyed(handler)


def _calls(dependant: Dependant) -> Iterator[object]:
    """Yield what an endpoint depends on, however deep."""
    for dependency in dependant.dependencies:
        yield dependency.call
        yield from _calls(dependency)

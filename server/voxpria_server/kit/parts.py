"""How an endpoint gets a part of its process: by a parameter, from `app.state`, where `main` put it."""

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import Request


def part(name: str) -> Callable[[Request], Awaitable[Any]]:
    """Return the dependency that gives the part of that name."""

    async def of_app(request: Request) -> Any:  # noqa: ANN401  (the parameter's annotation says what it is)
        return getattr(request.app.state, name)

    return of_app

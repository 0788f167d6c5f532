"""Place a call through a running sandbox from the command line: `python -m voxpria_sandbox.cli call +15555551234`."""

import asyncio
import json
from typing import Annotated, Any, Literal

import aiohttp
import typer

from voxpria_sandbox.settings import Settings

_EXTRA_SECONDS = 120
"""What ringing and ending may take beside the talk."""

app = typer.Typer(add_completion=False, help="The sandbox's command line.")


@app.callback()
def sandbox() -> None:
    """Use the sandbox of a running instance (`./run`)."""


@app.command()
def call(
    to: Annotated[str, typer.Argument(help="The number to call, such as +15555551234.")],
    caller: Annotated[str, typer.Option("--from", help="The number that calls.")] = "+13038921234",
    seconds: Annotated[float, typer.Option(help="How long to talk.")] = 5,
    say: Annotated[str | None, typer.Option(help="What the caller says; '' is silence.")] = None,
    hangup_by: Annotated[Literal["caller", "agent"], typer.Option(help="Who ends the call.")] = "caller",
    trunk: Annotated[
        str | None,
        typer.Option("--outbound", help="Call out as a provider's agent, proving USERNAME:PASSWORD of its trunk."),
    ] = None,
) -> None:
    """Place a call from the sandbox's carrier to the edge. Exit 0 if it was answered and the agent was heard.

    With --outbound, a call from one of your numbers (--from) out through the edge, as a provider places it.
    """
    settings = Settings()
    body = {"to": to, "from": caller, "seconds": seconds, "say": say, "hangup_by": hangup_by}
    path = "/carrier/calls"
    if trunk is not None:
        username, _, password = trunk.partition(":")
        path, body = "/agent/calls", {**body, "username": username, "password": password}
        del body["hangup_by"]
    try:
        result = asyncio.run(_place(settings, path, body))
    except aiohttp.ClientConnectorError as error:
        typer.echo(f"Nothing answers at {settings.url}: is ./run running?", err=True)
        raise typer.Exit(1) from error
    except (aiohttp.ClientError, TimeoutError) as error:
        typer.echo(f"The sandbox broke off: {error}", err=True)
        raise typer.Exit(1) from error
    _show_result(settings, result)
    if not (result.get("answered") and result.get("packets_received")):
        raise typer.Exit(1)


async def _place(settings: Settings, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """Place the call, show its progress, and return its result."""
    timeout = aiohttp.ClientTimeout(total=body["seconds"] + _EXTRA_SECONDS)
    result: dict[str, Any] = {}
    async with (
        aiohttp.ClientSession(timeout=timeout) as session,
        session.post(f"{settings.url}{path}", json=body) as response,
    ):
        if response.status != 200:
            return {"sip_reason": f"the sandbox refused: {await response.text()}"}
        async for line in response.content:
            result = json.loads(line)
            _show_progress(result)
    return result


def _show_progress(line: dict[str, Any]) -> None:
    match line:
        case {"event": "calling", "to": to, "from": caller}:
            typer.echo(f"calling {to} from {caller}")
        case {"event": "answered"}:
            typer.echo("answered; talking ...")
        case {"event": "ended", "ended_by": ended_by}:
            typer.echo(f"ended by the {ended_by}")
        case {"event": _, "sip_code": code, "sip_reason": reason} if line["event"] != "result":
            typer.echo(f"{code} {reason}")


def _show_result(settings: Settings, result: dict[str, Any]) -> None:
    if result.get("answered"):
        typer.echo(
            f"{result['duration_seconds']} s of call; {result['heard_speech_seconds']} s of speech heard; "
            f"{result['packets_sent']} packets sent, {result['packets_received']} received"
        )
    else:
        typer.echo(f"not answered: {result.get('sip_code') or ''} {result.get('sip_reason')}", err=True)
    if result.get("call_id"):
        typer.echo("\nIts record:\n")
        header = "Authorization: Bearer vox_sk_test_abc123xyz789"
        typer.echo(f"  curl -s {settings.api_url}/v1/calls/{result['call_id']} -H '{header}'")


if __name__ == "__main__":
    app(prog_name="./run")

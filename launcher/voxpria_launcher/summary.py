"""What is said once everything is up, or is not."""

from collections.abc import Sequence
from pathlib import Path

from voxpria_launcher.parts import Part
from voxpria_launcher.settings import Settings

_SANDBOX = """
  sandbox       SIP agent {sandbox_address}:{sip_port} udp, tcp; {sip_tls_port} tls; its HTTP {sandbox_url}

  The documented test key works here: vox_sk_test_abc123xyz789

Next, in another terminal, a trunk, an agent and a number:

  A='Authorization: Bearer vox_sk_test_abc123xyz789'; J='Content-Type: application/json'
  id() {{ python3 -c 'import json,sys; print(json.load(sys.stdin)["id"])'; }}
  T=$(curl -s {api_url}/v1/sip/trunks -H "$A" -H "$J" -d '{{"name": "My first trunk", "provider": "generic",
    "credentials": {{"username": "test_user", "password": "test_pass"}},
    "config": {{"server": "sip.test.voxpria.com"}}}}' | id)
  G=$(curl -s {api_url}/v1/agents -H "$A" -H "$J" -d '{{"name": "Reception", "engine": "elevenlabs"}}' | id)
  P=$(curl -s {api_url}/v1/phone-numbers/import -H "$A" -H "$J" -d '{{"phone_number": "+15555551234",
    "trunk_id": "'$T'", "agent_id": "'$G'", "config": {{"first_message": "Hello, this is your own line."}}}}' | id)
  curl -s -X POST {api_url}/v1/phone-numbers/$P/provision -H "$A"

Then a real call, from the sandbox's carrier, and its record:

  {environment}./run call +15555551234
  curl -s {api_url}/v1/calls -H "$A"
"""

_NAMELESS = """

  This edge has addresses of both families and no name: sides that speak IPv6 are shown its IPv4 address in Contact and
  Via. Set VOXPRIA_SIP_NAME to a name in DNS that leads to both.
"""


def of(settings: Settings) -> str:
    """Return what listens where, and the next steps."""
    lines = f"""\
  API           {settings.api_url}/v1
  for people    {settings.api_url}/docs, {settings.api_url}/status
  SIP           {settings.sip_address}:{settings.sip_port} udp, tcp; {settings.sip_tls_port} tls
  media         {settings.media}:{settings.media_port_min}-{settings.media_port_max} udp
  data, logs    {settings.data}, {settings.data / "log"}"""
    if settings.sip_address_v6 and settings.sip_name is None:
        lines += _NAMELESS
    if settings.sandbox:
        values = {**settings.model_dump(), "api_url": settings.api_url, "sandbox_url": settings.sandbox_url}
        lines += _SANDBOX.format(**values, environment=_environment(settings))
    return lines + "\nCtrl-C ends all of it."


def _environment(settings: Settings) -> str:
    """Return the assignments that another command needs to reach this instance."""
    defaults = Settings.model_fields
    names = ("http_port", "sandbox_address")
    given = [(name, getattr(settings, name)) for name in names if getattr(settings, name) != defaults[name].default]
    return "".join(f"VOXPRIA_{name.upper()}={value} " for name, value in given)


def of_logs(parts: Sequence[Part], lines: int = 5) -> str:
    """Return the last lines of every part's log."""
    return "\n".join(f"--- {part.log}\n{_tail(part.log, lines)}" for part in parts)


def _tail(path: Path, lines: int) -> str:
    if not path.exists():
        return "(empty)"
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 4096))
        return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])

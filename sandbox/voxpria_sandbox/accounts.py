"""Who may call which of the hosts that the SIP agent stands for."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from voxpria_sandbox.sip.digest import Credentials, Secrets

ELEVENLABS_HOST = "sip.rtc.elevenlabs.io"
OPENAI_HOST = "sip.api.openai.com"
TEST_HOST = "sip.test.voxpria.com"
_RESIDENCES = ("eu", "in", "sg")
_ALSO = {
    ELEVENLABS_HOST: (
        "sip-static.rtc.elevenlabs.io",
        *(f"{name}.rtc.{region}.residency.elevenlabs.io" for name in ("sip", "sip-static") for region in _RESIDENCES),
    ),
    OPENAI_HOST: tuple(f"sip-{region}.api.openai.com" for region in ("eu", "in")),
}
"""A provider's other SIP hosts. The sandbox has one account for all of them; at the provider a region has its own."""

HOSTS = (TEST_HOST, *(host for first, others in _ALSO.items() for host in (first, *others)))
"""Every host that the SIP agent stands for."""
TEST_CREDENTIALS = Credentials("test_user", "test_pass")


@dataclass(frozen=True)
class Access:
    """Whose digest is taken; anybody's call, if `is_open`."""

    users: Sequence[Secrets] = ()
    is_open: bool = False


class Registrations(Protocol):
    """The credentials that the ElevenLabs fake was given, as secrets in the realm of their SIP host."""

    def of_number(self, number: str) -> Access | None:
        """Return who may call a number; None if it is not there."""
        ...

    def of_all(self) -> Access:
        """Return the credentials of every number."""
        ...


class Projects(Protocol):
    """The projects that the OpenAI fake knows; whoever knows one's id may call it, as at OpenAI."""

    def has_project(self, project: str) -> bool:
        """Tell whether a project is known."""
        ...


def main_host(host: str) -> str:
    """Return the SIP host of the provider that a host belongs to, in whose realm its credentials are; else itself."""
    return next((first for first, others in _ALSO.items() if host in others), host)


class Accounts:
    """Answers, for a called host and user, whose digest is taken."""

    def __init__(self, elevenlabs: Registrations, openai: Projects) -> None:
        self._elevenlabs, self._openai = elevenlabs, openai

    def access(self, host: str, user: str | None) -> Access | None:
        """Return who may call a `main_host`; None if nobody can, the number being unknown there.

        Every host but the providers' is the test host under another name (the sandbox's own address, say).
        """
        if host == OPENAI_HOST:
            return Access(is_open=True) if user is None or self._openai.has_project(user) else None
        if host != ELEVENLABS_HOST:
            return Access([TEST_CREDENTIALS.secrets(host)])
        return self._elevenlabs.of_number(user) if user else self._elevenlabs.of_all()

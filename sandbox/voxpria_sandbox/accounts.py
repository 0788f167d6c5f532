"""Who may call which of the hosts that the SIP agent stands for."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from voxpria_sandbox.sip.digest import Credentials, Secrets

ELEVENLABS_HOST = "sip.rtc.elevenlabs.io"
OPENAI_HOST = "sip.api.openai.com"
TEST_HOST = "sip.test.voxpria.com"
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


class Accounts:
    """Answers, for a called host and user, whose digest is taken."""

    def __init__(self, elevenlabs: Registrations, openai: Projects) -> None:
        self._elevenlabs, self._openai = elevenlabs, openai

    def access(self, host: str, user: str | None) -> Access | None:
        """Return who may call; None if nobody can, the number being unknown there.

        Every host but the providers' is the test host under another name (the sandbox's own address, say).
        """
        if host == OPENAI_HOST:
            return Access(is_open=True) if user is None or self._openai.has_project(user) else None
        if host != ELEVENLABS_HOST:
            return Access([TEST_CREDENTIALS.secrets(host)])
        return self._elevenlabs.of_number(user) if user else self._elevenlabs.of_all()

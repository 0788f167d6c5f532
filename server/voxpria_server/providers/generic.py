"""Any SIP server: it takes calls for a number without being told of it. Only the sandbox's wants to be told."""

import httpx2

from voxpria_server.providers.base import NumberOrder, RefusedError, Taken, UnreachableError
from voxpria_server.providers.hosts import SANDBOX_SIP
from voxpria_server.settings import Settings


class Generic:
    """Adapter of generic trunks."""

    def __init__(self, http: httpx2.AsyncClient, settings: Settings) -> None:
        self._http, self._settings = http, settings

    async def provision(self, order: NumberOrder) -> Taken:
        """Ask the sandbox's SIP agent (its documented numbers fail or take their time); others need no asking."""
        if order.mode == "live" or order.server != SANDBOX_SIP:
            return Taken()
        if not self._settings.sandbox:
            raise RefusedError("sip.test.voxpria.com is the sandbox's, and the sandbox is off")
        try:
            answer = await self._http.post(
                f"{self._settings.sandbox_url}/sip/numbers", json={"phone_number": order.e164}
            )
            body = answer.json() if answer.content else {}
        except (httpx2.HTTPError, ValueError) as error:
            raise UnreachableError("the sandbox did not answer") from error
        if answer.status_code >= httpx2.codes.INTERNAL_SERVER_ERROR:
            raise UnreachableError("the sandbox failed")
        if answer.is_error:
            raise RefusedError(str(body.get("detail", "the sandbox refused"))[:300])
        return Taken()

"""HTTP as the API speaks it: uvicorn's, but for what is no HTTP, which is answered as any other mistake."""

from http import HTTPStatus

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from voxpria_server.errors import InvalidParameterError, render
from voxpria_server.kit.ids import new_id
from voxpria_server.kit.logs import get_logger

_log = get_logger(__name__)
_STATUS_LINE = f"HTTP/1.1 {HTTPStatus.BAD_REQUEST.value} {HTTPStatus.BAD_REQUEST.phrase}"
_MESSAGE = (
    "This can't be read as HTTP. A space, or a character beyond ASCII, is percent-encoded in a path or query; methods"
    " are GET, POST, PATCH and DELETE."
)


def protocol(docs_url: str) -> type[HttpToolsProtocol]:
    """Return the protocol of clients' connections; `docs_url` is where the reference is."""

    class Protocol(HttpToolsProtocol):
        """A client's connection."""

        def send_400_response(self, msg: str) -> None:
            """Answer what no request could be made of, and close: where the next would begin can't be known."""
            request_id = new_id("req")
            _log.info("request unreadable", request_id=request_id)
            answer = render(InvalidParameterError(_MESSAGE, field="request"), request_id, docs_url)
            headers = {**answer.headers, "x-request-id": request_id, "connection": "close"}
            head = [_STATUS_LINE, *(f"{name}: {value}" for name, value in headers.items()), "", ""]
            self.transport.write("\r\n".join(head).encode() + bytes(answer.body))
            self.transport.close()

    return Protocol

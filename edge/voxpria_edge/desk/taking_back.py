"""Offers within calls that were refused: rtpengine, which has acted on them, is given what was agreed to before."""

import structlog

from voxpria_edge.kit.background import Background
from voxpria_edge.media.rtpengine import Rtpengine, RtpengineError
from voxpria_edge.proxy import messages
from voxpria_edge.proxy.messages import text

_log = structlog.get_logger(__name__)


class TakingBack:
    """Sets sessions right (RFC 3261 section 14.1: after a refusal they are as before)."""

    def __init__(self, rtpengine: Rtpengine) -> None:
        self._rtpengine = rtpengine
        self._background = Background()

    def take_back(self, message: messages.TakenBack) -> None:
        """Begin to set one session right; neither side hears of it, as their ports and keys stay."""
        self._background.begin(self._take_back(message))

    async def _take_back(self, message: messages.TakenBack) -> None:
        record, tags = text(message.record), (text(message.from_tag), text(message.to_tag))
        try:
            await self._rtpengine.offer(record, *tags, text(message.offer), text(message.flags))
            await self._rtpengine.answer(record, *tags, text(message.answer), text(message.answer_flags))
        except RtpengineError as error:
            _log.warning("a refused offer could not be taken back", call_id=record, error=str(error))

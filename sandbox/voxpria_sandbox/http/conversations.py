"""The fake of ElevenLabs' conversations (`/elevenlabs/v1/convai/conversations`): those that its SIP agent really held.

What the agent said is what it spoke. The sandbox recognises no speech: the words of a caller are known if that was
the sandbox's own carrier, and count as said once the agent has heard a voice.
"""

from typing import Any

from aiohttp import web

from voxpria_sandbox.accounts import ELEVENLABS_HOST
from voxpria_sandbox.agent import AgentCall, SipAgent
from voxpria_sandbox.http import bodies

_PATH = "/elevenlabs/v1/convai/conversations"
_MOST_A_PAGE = 100


def routes(agent: SipAgent) -> list[web.RouteDef]:
    """Return the routes."""
    api = _Conversations(agent)
    return [web.get(_PATH, api.list_all), web.get(f"{_PATH}/{{id}}", api.show)]


class _Conversations:
    def __init__(self, agent: SipAgent) -> None:
        self._agent = agent

    async def list_all(self, request: web.Request) -> web.Response:
        _check_key(request)
        query = request.query
        after, before = _number(query.get("call_start_after_unix")), _number(query.get("call_start_before_unix"))
        first, size = int(_number(query.get("cursor")) or 0), int(_number(query.get("page_size")) or 30)
        wanted = [
            call
            for call in self._all()
            if query.get("agent_id") in (None, call.agent_id)
            and (after is None or call.answered_unix >= after)
            and (before is None or call.answered_unix <= before)
        ]
        last = first + min(max(size, 1), _MOST_A_PAGE)
        has_more = last < len(wanted)
        return web.json_response(
            {
                "conversations": [_item(call) for call in wanted[first:last]],
                "has_more": has_more,
                "next_cursor": str(last) if has_more else None,
            }
        )

    async def show(self, request: web.Request) -> web.Response:
        _check_key(request)
        call = next((call for call in self._all() if call.conversation_id == request.match_info["id"]), None)
        if call is None:
            raise bodies.refusal(web.HTTPNotFound, {"status": "conversation_not_found", "message": "Not found."})
        return web.json_response(_detail(call))

    def _all(self) -> list[AgentCall]:
        return [call for call in self._agent.calls() if call.host == ELEVENLABS_HOST and call.call is not None]


def _item(call: AgentCall) -> dict[str, Any]:
    return {
        "conversation_id": call.conversation_id,
        "agent_id": call.agent_id,
        "agent_name": call.agent_id,
        "start_time_unix_secs": int(call.answered_unix),
        "call_duration_secs": int(call.duration_seconds),
        "message_count": len(call.turns()),
        "status": "done" if call.status == "completed" else "in-progress",
        "call_successful": "unknown",
        "direction": "inbound",
    }


def _detail(call: AgentCall) -> dict[str, Any]:
    item = _item(call)
    return {
        "conversation_id": call.conversation_id,
        "agent_id": call.agent_id,
        "status": item["status"],
        "transcript": [
            {
                "role": turn.role,
                "message": turn.text,
                "time_in_call_secs": int(turn.at_unix - int(call.answered_unix)),
                "tool_calls": [],
                "tool_results": [],
                "interrupted": False,
            }
            for turn in call.turns()
        ],
        "metadata": {
            "start_time_unix_secs": item["start_time_unix_secs"],
            "accepted_time_unix_secs": item["start_time_unix_secs"],
            "call_duration_secs": item["call_duration_secs"],
            "conversation_initiation_source": "sip_trunk",
            "phone_call": {
                "type": "sip_trunking",
                "direction": "inbound",
                "agent_number": call.number,
                "external_number": call.caller,
                "call_sid": call.sip_call_id,
                "call_id": None,
                "sip_header_dynamic_variables": {"sip_voxpria_call_id": call.call_id} if call.call_id else {},
            },
        },
        "analysis": None,
        "has_audio": False,
        "has_user_audio": False,
        "has_response_audio": False,
    }


def _check_key(request: web.Request) -> None:
    if not request.headers.get("xi-api-key", "").strip():
        detail = {"status": "invalid_api_key", "message": "The header xi-api-key is missing."}
        raise bodies.refusal(web.HTTPUnauthorized, detail)


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError as error:
        raise bodies.refusal(web.HTTPUnprocessableEntity, str(error)) from error

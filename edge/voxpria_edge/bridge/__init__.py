"""The middle of calls that we place, or answer first: one half with the caller or callee, one to the agent (RFC 3725).

Both halves go through our own Kamailio, which treats them as it does any other; only their media is arranged here, in
one session of rtpengine's. The callee is offered media in our name, a caller is answered in it. Then the agent takes
our place in that session: it is offered what the other side said, and the ports stay, so that hears of no change.

We answer a caller first where an announcement is to be spoken before anything is recorded. Nobody else would do: an
agent that was called already would talk into it.

`bridges` knows all such calls, `setup` connects the two sides of one, `calling` calls a side, `bridged` is a call from
then on, `side` answers what it asks within it, `session_timer` says how long it lasts. `caller` sends what is ours to
Kamailio, `half` is an INVITE of ours while it is there, `own_sdp` writes session descriptions in our name.
"""

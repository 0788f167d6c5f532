"""The SIP messages of each call: Kamailio mirrors them (HEP), they are stripped of secrets, kept, and handed over.

All of it is evidence and none of it is needed for a call: every queue is bounded and drops, every failure is logged
and forgotten, and the file that holds the messages is its own.
"""

from voxpria_edge.trace.tracer import Tracer

__all__ = ["Tracer"]

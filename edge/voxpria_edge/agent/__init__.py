"""The agent beside Kamailio: `python -m voxpria_edge.agent`."""

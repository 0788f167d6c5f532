"""Agents: who answers a number; ours, each standing for one at a provider by its `external_id`."""

"""Webhooks: telling customers' servers what happened; every event once written, delivered at least once."""

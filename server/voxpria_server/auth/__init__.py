"""API keys: who is calling, for which account and mode, and what they may do."""

"""Accounts: what everything else belongs to."""

"""Calls: one record each, made of the events that the edges report, and what hangs on it."""

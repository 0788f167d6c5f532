"""The edge's own copy of all routes."""

"""The way to Kamailio, and what is said on it."""

"""A call as the edge knows it: how it begins and ends, what is said of it, and what is kept of it on disk."""

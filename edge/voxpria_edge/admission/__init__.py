"""Who and what is let in: what this edge knows besides the routes, of callers, limits and strangers."""

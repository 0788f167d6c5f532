"""The trunks' servers: how they are, where they are, what they challenge with, and our registrations there."""

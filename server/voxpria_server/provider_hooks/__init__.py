"""What the AI providers tell us."""

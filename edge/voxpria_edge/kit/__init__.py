"""What any of the others may need, and knows nothing of telephony."""

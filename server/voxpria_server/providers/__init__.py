"""The outside: AI providers and SIP servers, one adapter each; none knows another, and none knows our tables."""

"""RTP with G.711, RTCP, and synthetic speech."""

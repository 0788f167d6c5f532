"""Which TLS is spoken, by edges and by whoever examines a server for them. Pure."""

CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM:DHE+CHACHA20"
"""Of TLS 1.2, as OpenSSL writes it: forward secrecy and authenticated encryption, as RFC 9325 section 4.2 recommends.

The keys of a call's media are in its messages: who records them and gets a server's key later shall not read them.
TLS 1.3 has no others.
"""

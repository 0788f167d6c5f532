"""SIP trunks: a connection to a provider or SIP server, its credentials, and how it is doing."""

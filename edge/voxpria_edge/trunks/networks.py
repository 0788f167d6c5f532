"""What no customer may make us go to."""

PRIVATE = (
    *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "168.63.129.16/32", "169.254.0.0/16", "172.16.0.0/12"),
    *("192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24"),
    *("203.0.113.0/24", "224.0.0.0/3", "::/32", "64:ff9b::/32", "100::/16", "2001::/23", "2001:db8::/32", "2002::/16"),
    *("3fff::/20", "5f00::/16", "fc00::/7", "fe00::/7"),
)
"""What no customer's trunk may make us go to: addresses inside, of this machine, of clouds' own servers, and those that
hold an IPv4 address inside (RFC 6890 and its registries)."""

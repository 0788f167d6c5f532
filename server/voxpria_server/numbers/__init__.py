"""Phone numbers: importing, provisioning, and what is counted of them."""

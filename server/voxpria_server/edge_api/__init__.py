"""What the edges ask and tell us, under /edge/v1; the wire is `voxpria_routing.edge_api`."""

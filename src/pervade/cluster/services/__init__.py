"""Services on a node: Service and EndpointSlice to one nftables table; relays to the host's loopback."""

"""Services on a node: Service and EndpointSlice to one nftables document; relays to the host's loopback."""

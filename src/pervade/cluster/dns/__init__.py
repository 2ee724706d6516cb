"""Names of Services and pods, as records (the DNS server itself is room `dns`)."""

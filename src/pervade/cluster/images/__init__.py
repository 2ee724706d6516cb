"""Images made on this machine, and the map from upstream names to them."""

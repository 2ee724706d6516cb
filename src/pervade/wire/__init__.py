"""The only door to grpcio and aiohttp: servers, channels, sessions, TLS."""

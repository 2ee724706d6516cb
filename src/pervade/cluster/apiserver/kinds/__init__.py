"""The kinds that are served: a registry as data, and what is special about each (strategies)."""

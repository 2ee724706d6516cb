"""Controllers and scheduler, as clients of the API."""

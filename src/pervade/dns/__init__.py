"""Names to answers, and the server rim."""

"""Words and small tools without mesh or cluster knowledge."""

"""Admission: what the server adds to objects, and what it refuses, after their author is known."""

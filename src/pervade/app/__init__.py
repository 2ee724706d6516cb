"""Composition roots, one per process."""

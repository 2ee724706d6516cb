"""Shipped with the package for tests and for the walk: what a machine looks like, before and after."""

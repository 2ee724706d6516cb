"""Nodes as sets of namespaces: fabric, root file system, init, life cycle."""

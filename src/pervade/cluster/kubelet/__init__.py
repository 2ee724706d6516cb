"""A small kubelet over CRI."""

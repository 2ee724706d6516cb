"""The embedded Kubernetes: nothing of the mesh."""

"""A server of the Kubernetes API that knows nothing of meshes."""

"""The Kubernetes API as a client: kinds, calls, reflector, kubeconfig."""

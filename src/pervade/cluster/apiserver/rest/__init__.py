"""The Kubernetes API over HTTP: routing, negotiation, verbs, watches, discovery."""

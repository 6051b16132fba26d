"""The Kubernetes side: what the services know of the cluster."""

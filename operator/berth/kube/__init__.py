"""The way to the Kubernetes API: configuration, a raw JSON client, list-and-watch."""

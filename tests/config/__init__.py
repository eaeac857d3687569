"""What `kubectl apply` installs: read as files here, and by a real API server."""

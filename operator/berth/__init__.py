"""Berth: IP address management for Kubernetes, from pools that the whole cluster shares."""

"""Annotations that more than one part of Berth reads; apart, since the agent has no room for the models beside it."""

# On a claim that its node's agent has made again: the UID of the Endpoint that vanished.
REASSERTED = "ipam.berth.dev/reasserted"
# On the mirror of a static Pod: the UID that its CNI calls carry.
STATIC_HASH = "kubernetes.io/config.hash"

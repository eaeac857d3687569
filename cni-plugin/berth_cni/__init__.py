"""The node's side of Berth: the agent that the CNI shim talks to, and the protocol between the two."""

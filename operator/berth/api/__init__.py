"""The edge: pydantic models of the three kinds, and how each becomes a fact of the core."""

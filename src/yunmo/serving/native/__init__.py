"""TODO docstring by the owner."""

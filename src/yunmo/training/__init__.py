"""Training: planning, the loop, and what is told of the result."""

"""Durable runs: the workflow, the runner that carries it out, and the child process that holds torch."""

"""Gate and data plane, and the faces that translate protocols. Never imports control."""

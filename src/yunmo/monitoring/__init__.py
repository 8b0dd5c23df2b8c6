"""What the service says of itself: metrics and traces. Never imports serving; it implements what serving calls."""

"""The native REST face of predictions."""

"""The Open Inference Protocol v2: its specification, types generated from it, and its tensors. No server."""

"""The Open Inference Protocol's REST face, and what its gRPC face shares with it."""

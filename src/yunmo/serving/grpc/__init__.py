"""The Open Inference Protocol's gRPC face."""

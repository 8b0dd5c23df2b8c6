"""A bundle opened for prediction with ONNX Runtime. No torch."""

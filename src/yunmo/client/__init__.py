"""Python client of the service, synchronous and asynchronous. Needs neither torch nor ONNX Runtime nor NumPy."""

"""From an ONNX file that others made to a bundle. No torch; it runs in a process of its own, with limits."""

"""Answers a second: Yunmo, its peers and ONNX Runtime alone, in one run. Start with ``run.py``."""

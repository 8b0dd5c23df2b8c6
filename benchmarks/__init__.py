"""Benchmarks: the scripts behind every figure that Yunmo claims."""

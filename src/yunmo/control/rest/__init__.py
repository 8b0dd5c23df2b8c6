"""The management REST API: one file of routes per noun, which only translate."""

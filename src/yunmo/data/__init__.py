"""Data: sources, fields, cleaning, splits and the prepared cache that training reads. No torch."""

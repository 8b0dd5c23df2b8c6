"""Folders of pretrained text encoders: which files are read, what they may say, and what is kept of it."""

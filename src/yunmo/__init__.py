"""Yunmo: bring data, get a model that answers over REST."""

__version__ = "0.1.0"

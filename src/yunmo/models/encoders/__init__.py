"""Encoders: what turns one field's tensor into a feature vector. One file per kind, named in ``registry``."""

"""The behaviour of the field types, one file each."""

"""The bundle's format: manifest, reading, writing, signing, verifying. No torch."""

"""What can be done with each noun, whatever the protocol. No web, no torch."""

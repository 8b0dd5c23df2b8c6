"""From a trained network to a bundle: export, parity, golden examples, card."""

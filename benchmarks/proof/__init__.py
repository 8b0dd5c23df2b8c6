"""The proof: no answer lost, none given to another. Start with ``run.py`` or ``rollout.py``."""

"""The words of Yunmo: specifications, errors, events, ids, settings and access. No I/O, no torch, no web."""

"""The words of Yunmo: specifications, errors, events, ids, settings and access. No torch, no web.

Nothing here touches the disk but `yunmo.core.files`, which is how every package writes a file.
"""

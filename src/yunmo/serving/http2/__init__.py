"""HTTP/2 (RFC 9113) for gRPC: uvloop moves the bytes, hpack reads the headers.

Connections speak it from their first byte. There is only what a server of short calls needs: whole bodies in, whole
answers out, no push and no priorities.

Why not a server off the shelf: grpc.aio hands every call to Python over a pipe between two threads, which costs more
than ten times the processor time (232 us a call against 17 with 64 at a time, benchmarks/grpc_server.py); calls that a
client resets at once (CVE-2023-44487) pile up in it without a bound that helps, and calls of others are cancelled for
them. h2, the library for the protocol itself, is Python too and made for any use of HTTP/2: without any I/O it took
160 us a call.
"""

"""`make demo`: agents written with unmodified SDKs behind a gate, and the outside world on loopback."""

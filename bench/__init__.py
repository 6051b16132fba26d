"""What docs/performance.md reports: `python -m bench [NAME…]`. Loads are bounded, stay on loopback and stop by themselves."""

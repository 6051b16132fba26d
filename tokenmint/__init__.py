"""Keys, hop tokens, upstream credentials, and certificates for opened TLS. Knows nothing of Envoy."""

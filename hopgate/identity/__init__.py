"""Identities as values: parsed once, carried as types, never compared with text. Pure."""

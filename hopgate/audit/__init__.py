"""The record: typed rows, the hash-chained spool that they are written to, its verification, and queries over it."""

"""A small world that tests share: the manifests beside this file, as a snapshot."""

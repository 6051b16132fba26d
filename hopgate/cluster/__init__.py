"""The processes of a cluster beside authz, composed of their parts."""

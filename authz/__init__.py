"""The ext_authz server: the decision path of every hop, and the resolver beside it."""

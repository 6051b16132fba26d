"""The whole gate on one machine: real programs and SDKs, real sandbox, real Envoy, real authz, real records."""

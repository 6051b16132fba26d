"""The proxy of one agent, wherever it runs: Envoy's bootstrap, the kernel's rules, and the programs of a pod's sidecar."""

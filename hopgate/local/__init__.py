"""One machine: `hopgate run` and `hopgate up`, the composition of the gate from its parts."""

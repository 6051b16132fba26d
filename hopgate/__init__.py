"""hopgate: one control point for every interaction of an AI agent.

This package holds what the services share. Which module may import which is held by import-linter
(see `[tool.importlinter]` in pyproject.toml and docs/explanation/architecture.md).
"""

__version__ = "0.1.0"

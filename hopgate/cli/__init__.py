"""The `hopgate` command: `hopgate NOUN VERB`."""

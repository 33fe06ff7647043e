"""The pipelines: what happens and in which order."""

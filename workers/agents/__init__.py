"""The shipped agents: `research` (questions over a folder) and `assistant` (a model with tools)."""

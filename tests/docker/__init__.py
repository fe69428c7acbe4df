"""Tests over real containers, for machines with a Docker engine: ``pytest -m docker``."""

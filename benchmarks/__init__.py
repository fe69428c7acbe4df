"""Measurements, as ratios within one run; never asserted in tests. Each module is a command with ``--help``."""

"""Documentation that runs: one concept in each test, by public names only."""

"""Controllers and their drivers, on a real store."""

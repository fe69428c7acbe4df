"""The durable agent: its deterministic loop, its replay, and one turn of it in a worker."""

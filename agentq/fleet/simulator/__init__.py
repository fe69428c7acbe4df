"""A pool of workers under a load, without the workers and without the waiting: discrete events, seeded."""

"""The keeper: a small process beside each worker that renews its lease and speaks for it when it is gone.

``program`` runs in it, with ``board``, ``watch`` and the store's ``lease``. ``guard`` starts it from the worker's main
process; ``claims`` tells it what runs.
"""

"""agentq in Flower: the same ids, with run, agent and step as columns.

`agentq up` passes `config.py` to Flower; by hand: `celery -A APP flower --conf=.../agentq/flower/config.py`.
"""

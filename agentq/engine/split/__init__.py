"""Split mode: a broker beside the store. Its messages are hints; the records in Redis stay the truth.

The same scripts as in fused mode. A queued step stands in the store's ``unsent``; ``posting`` tells the broker of it,
``desk`` claims in one script what the broker delivers, ``sending`` has steps go to the store instead of the broker.
Plain Celery tasks keep their broker's ways.
"""

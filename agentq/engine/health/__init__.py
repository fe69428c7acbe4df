"""How a worker is: it measures itself, says so with its lease, and takes nothing while it is unhealthy or drained.

``monitor`` looks every second, ``memory`` tells what is free, ``draining`` what a person's marks mean for a worker.
"""

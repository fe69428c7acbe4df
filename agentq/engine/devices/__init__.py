"""The GPUs of a worker's machine.

``nvml`` asks the driver, ``finding`` decides which of them a worker uses, ``pinning`` gives each child of its pool one.
"""

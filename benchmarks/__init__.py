"""Measurements beside stock Celery, as ratios within one run; never asserted in tests.

``python -m benchmarks --help`` lists them and runs them. ``apps`` holds what the workers run, ``contenders`` who is
measured, ``measures`` what is measured, ``report`` how it is shown.
"""

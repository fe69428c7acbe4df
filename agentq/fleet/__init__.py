"""Pools at work: how large they are to be, who sees to it, and a simulator of both."""

"""What people see in a terminal: tables, the live view of a run, its timeline, its answer.

Every function takes plain models of `agentq.core` and gives something that rich can print. It must not
know where the models come from, and it decides nothing.
"""

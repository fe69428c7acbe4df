"""The Lua scripts of the protocol: one file a verb, each with its keys, arguments, replies and invariant on top."""

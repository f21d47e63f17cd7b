"""Everything that touches Redis: the keys, the Lua scripts that write them, and both sides' clients."""

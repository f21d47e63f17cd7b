"""The built-in networks, and how a network is computed on a device."""

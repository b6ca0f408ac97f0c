"""Measuring speed: a load generator in a process of its own, and who spent the time."""

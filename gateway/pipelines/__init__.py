"""The tasks and their chains, one file a task: pure functions in worker threads, Triton between them.

This is the only code that knows Triton models by name.
"""

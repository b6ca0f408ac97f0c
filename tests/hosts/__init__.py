"""Several hosts on one machine, and what befalls them: see `__main__.py`."""

"""The commands that ask a server about a photo, one module for each task."""

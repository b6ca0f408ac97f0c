"""The commands that ask a server about a photo, one file a task."""

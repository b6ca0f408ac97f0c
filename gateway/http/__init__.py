"""The HTTP front: the same tasks for curl, browsers and other SDKs."""

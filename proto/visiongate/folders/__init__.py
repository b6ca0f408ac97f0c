"""What people do with a folder of photos: search it, find duplicates and groups, label it, moderate it."""

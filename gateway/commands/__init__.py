"""Commands of the server that are more than a function, one file each."""

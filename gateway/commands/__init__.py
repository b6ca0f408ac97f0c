"""Commands of the server that have more than one function, one file each."""

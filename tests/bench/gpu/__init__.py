"""What one GPU gives: graphs alone, against PyTorch, and served. See `python -m bench.gpu --help`."""

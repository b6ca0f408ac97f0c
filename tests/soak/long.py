"""The tests that `make test` leaves out, since they take long: those that are marked so."""

import sys

import pytest

if __name__ == "__main__":
    sys.exit(pytest.main(["-m", "long", "--numprocesses", "2", "--dist", "loadfile"]))

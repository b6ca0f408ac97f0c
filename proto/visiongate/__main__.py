"""`python -m visiongate`: the same as the command `visiongate`."""

from visiongate_command import main

if __name__ == "__main__":
    main()

"""``python -m edgeseg`` is the command line."""

from edgeseg.cli import main

if __name__ == "__main__":
    main()

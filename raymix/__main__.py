"""`raymix`, and `python -m raymix`: the command line, whose imports take a second in which Ctrl-C may come."""

import sys


def main() -> None:
    """The console script."""
    try:
        from raymix.cli import main as command_line
    except KeyboardInterrupt:
        sys.exit(130)
    command_line()


if __name__ == "__main__":
    main()

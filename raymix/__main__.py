"""`python -m raymix` is `raymix`."""

from raymix.cli import main

main()

"""`python -m fashion` is the command `fashion`."""

import sys

from fashion.commands.main import main

if __name__ == "__main__":
    sys.exit(main())

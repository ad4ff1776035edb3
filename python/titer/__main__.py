"""`python -m titer` is the command line tool."""

import sys

from titer.cli import main

sys.exit(main())

"""The command line tool `titer`.

Results go to stdout, progress and errors to stderr. Exit codes: 0 goal reached, 1 not reached, 2 wrong usage,
3 failure, 4 inconclusive, 130 stopped by Ctrl-C. Modules that take long to import (torch, transformers, the compiled
core) are imported by the commands that need them.
"""

from titer.cli.application import main

__all__ = ["main"]

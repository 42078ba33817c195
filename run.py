"""The only entry point: `python run.py MODE --gin_file=PATH [--gin.NAME=VALUE ...]`.

Exit status 0: done (also after SIGTERM saved a checkpoint). 1: it failed. 2: bad use; the message
says what was given, what is allowed and how to mend it.

Nothing heavy is imported before the mode is known, so that `--help` answers at once.
"""

import sys

from instruct.cli.arguments import run_program

if __name__ == "__main__":
    sys.exit(run_program())

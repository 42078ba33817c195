"""The only entry point: `python run.py MODE --gin_file=PATH [--gin.NAME=VALUE ...]`.

Exit status 0: done (also after SIGTERM saved a checkpoint). 1: failed. 2: bad use.
"""

import sys

from instruct.cli.arguments import run_program

if __name__ == "__main__":
    sys.exit(run_program())

"""``python -m yunmo.cli``: the command line, where the ``yunmo`` script is not on the path."""

import sys

from yunmo.cli.main import main

sys.exit(main())

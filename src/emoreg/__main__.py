"""`python -m emoreg`: the command line, for when its script is not on the path."""

import sys

from emoreg.cli.main import main

sys.argv[0] = "emoreg"
sys.exit(main())

"""``python -m layerguard.runtime.cli``: the command line where no script is on the path."""

import sys

from layerguard.runtime.cli import main

sys.exit(main())

"""``python -m layerguard.runtime.cli``: the command line without the installed script."""

import sys

from layerguard.runtime.cli import main

sys.exit(main())

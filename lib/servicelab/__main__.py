"""``python -m servicelab`` is the ``servicelab`` command."""

import sys

from .cli import main

sys.exit(main())

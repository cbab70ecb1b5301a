"""`python -m demos` lists the demos, `python -m demos NAME` runs one."""

import sys

from demos.runner import main

sys.exit(main())

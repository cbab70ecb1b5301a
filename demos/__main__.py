"""`python -m demos` lists the demos, `python -m demos NAME` runs one."""

import sys

try:
    from demos.runner import main
except KeyboardInterrupt:  # loading takes a moment, in which Ctrl-C may come as well
    sys.exit(130)
except ValueError as error:  # tinygen refuses a setting of the environment
    print(f"python -m demos: {error}", file=sys.stderr)
    sys.exit(2)

sys.exit(main())

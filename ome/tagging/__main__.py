"""`python -m ome.tagging FOLDER`: the same as `ome tags FOLDER`."""

import sys

from ome.tagging.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

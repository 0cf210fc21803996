"""Start the server, for hosts that start the file which a bundle names rather than its command."""

import sys

from soulkeep.cli import main

if __name__ == "__main__":
    sys.argv[1:] = sys.argv[1:] or ["serve"]
    main()

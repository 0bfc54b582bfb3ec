"""``python -m pretune``: the command line."""

from __future__ import annotations

from pretune.cli.main import main

if __name__ == "__main__":
    main()

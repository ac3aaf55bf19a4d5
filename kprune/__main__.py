"""`python -m kprune`: the same as the `kprune` command."""

from __future__ import annotations

from kprune.cli import main

if __name__ == "__main__":
    main()

"""Run saved inputs again: python -m tests.hostile.replay FILE.json ..."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.hostile.fuzz import alone, prepare
from tests.hostile.targets import TARGETS


def main() -> int:
    """The command line; 1 if any of them still fails."""
    saved = [json.loads(Path(name).read_text()) for name in sys.argv[1:]]
    prepare(sorted({one["kind"] for one in saved}))
    failed = 0
    for name, one in zip(sys.argv[1:], saved, strict=True):
        now = alone(TARGETS[one["kind"]], one["ops"])
        failed += bool(now)
        print(f"{name}: {now or 'as it should be'}")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())

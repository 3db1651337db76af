"""Imports each module named on stdin in a process of its own; one JSON line per module.

Run by test_imports.py. A fork is a fresh start for a few milliseconds, where an interpreter costs
fifty. Packages named as arguments are loaded before the forks: they are not what is examined.
"""

import importlib
import json
import os
import sys
import traceback


def imported(name: str) -> dict[str, object]:
    """The module's error, if it has one, and everything that is loaded after it."""
    try:
        importlib.import_module(name)
    except BaseException:
        return {"module": name, "error": traceback.format_exc(limit=-3), "loaded": []}
    return {"module": name, "error": None, "loaded": sorted(sys.modules)}


def main() -> None:
    """Answers for all modules, in the order in which they were named."""
    names = sys.stdin.read().split()
    for package in sys.argv[1:]:
        importlib.import_module(package)
    for name in names:
        child = os.fork()
        if child == 0:
            sys.stdout.write(json.dumps(imported(name)) + "\n")
            sys.stdout.flush()
            os._exit(0)
        os.waitpid(child, 0)


if __name__ == "__main__":
    main()

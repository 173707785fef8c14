"""Run a command with several command lines, and print for each its status, output and newly loaded packages."""

import sys

before = set(sys.modules)
import contextlib
import importlib
import io
import json

from shards.command_line import run_command

name, runs = sys.argv[1], json.loads(sys.argv[2])
module = importlib.import_module(name)
found = []
for argv in runs:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = run_command(lambda: module.main(argv))
        except SystemExit as ended:
            status = ended.code
    files = {
        name.partition(".")[0]: getattr(module, "__file__", None)
        for name, module in sys.modules.items()
        if name not in before
    }
    loaded = sorted(name for name, file in files.items() if file and "site-packages" in file)
    found.append({"argv": argv, "status": status, "out": out.getvalue(), "err": err.getvalue(), "loaded": loaded})
print(json.dumps(found))

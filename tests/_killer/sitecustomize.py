"""Python imports this first of all where its folder is on the path: kills the process that executes a notebook."""

import json
import os
import sys

if "KILL_WORKER" in os.environ and "mlkernels.runner.execute" in sys.orig_argv:
    from _moment import Moment, Watch

    folder, moment = json.loads(os.environ["KILL_WORKER"])
    Watch(folder, Moment(*moment))

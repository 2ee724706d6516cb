"""Composition root of one node: prepares it, then becomes the process that holds its namespaces."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path

from pervade.base import log as logs
from pervade.base.errors import OperatorError
from pervade.cluster.node import node
from pervade.cluster.plan import load

if __name__ == "__main__":
    logs.set_up()
    parser = argparse.ArgumentParser(prog="pervade-node", description="Runs the namespaces of one node.")
    parser.add_argument("--plan", type=Path, required=True)
    parser.add_argument("--node", required=True)
    options = parser.parse_args()
    try:
        plan = load(options.plan)
        node.prepare(plan, options.node)
        argv = node.command(plan, options.node)
    except OperatorError as error:
        logging.getLogger("pervade.node").error(error.text())
        sys.exit(1)
    os.execvp(argv[0], argv)

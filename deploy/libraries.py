"""Prints the libraries that pyproject.toml asks for, with those of the extras that are named: the Dockerfile
installs them before there is any source."""

import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
for library in [
    *project["dependencies"],
    *(library for extra in sys.argv[1:] for library in project["optional-dependencies"][extra]),
]:
    sys.stdout.write(f"{library}\n")

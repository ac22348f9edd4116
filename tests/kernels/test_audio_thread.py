"""Nothing that a kernel leaves in a node's machine code may reach the interpreter or the allocator."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def calls(tmp_path_factory):
    """Outside calls of each node, compiled with an empty cache: from a full one the code cannot be read."""
    environment = {
        **os.environ,
        "RTGAN_CACHE_DIR": str(tmp_path_factory.mktemp("cache")),
        "PYTHONPATH": os.pathsep.join([str(_ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    probes = Path(__file__).with_name("probes.py")
    done = subprocess.run([sys.executable, probes], env=environment, check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout)


def test_no_node_calls_anything_outside_itself(calls):
    clean = {name: found for name, found in calls.items() if "planted" not in name}
    assert len(clean) >= 14
    assert {name: found for name, found in clean.items() if found} == {}


def test_the_search_finds_what_is_planted(calls):
    assert any("PyErr" in call or "gil" in call for call in calls["__main__.planted_error"])
    assert any("NRT_" in call for call in calls["__main__.planted_allocation"])

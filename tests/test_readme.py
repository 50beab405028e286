"""tests/README.md promises a test for each fault. Each must exist."""
import ast
import re

from conftest import ROOT

PROMISES = (ROOT / "tests" / "README.md").read_text(encoding="utf-8")


def test_every_promised_test_exists():
    there = {
        node.name for path in (ROOT / "tests").glob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.FunctionDef)
    }
    assert set(re.findall(r"`(test_\w+)`", PROMISES)) - there == set()


def test_every_fault_names_what_is_seen_and_a_test():
    lines = [line for line in PROMISES.splitlines() if line.startswith("| ")]
    rows = [line for line in lines if not line.startswith(("| fault", "| ---"))]
    assert len(rows) >= 25
    for row in rows:
        fault, seen, test = (cell.strip() for cell in row.strip("|").split(" | "))
        assert fault and seen and re.search("`test_", test), row

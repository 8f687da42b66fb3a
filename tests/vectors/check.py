#!/usr/bin/env python3
"""Computes every test vector of format1.json and row_ids.json anew with the Python implementation. Exit status 0 if all are right."""

import io
import json
import pathlib
import sys
import tempfile
import uuid
from contextlib import redirect_stderr, redirect_stdout

import audit_chain_format as fmt
import audit_chain_tree
import row_ids

HERE = pathlib.Path(__file__).parent


def expand(value):
    """Writes out {"repeat": text, "times": n}."""
    if isinstance(value, dict) and set(value) == {"repeat", "times"}:
        return value["repeat"] * value["times"]
    if isinstance(value, dict):
        return {name: expand(part) for name, part in value.items()}
    return value


def check_entry(vector):
    entry = expand(vector["entry"])
    assert fmt.who_digest(entry).hex() == vector["who_digest"], "who_digest"
    assert fmt.payload_digest(entry).hex() == vector["payload_digest"], "payload_digest"
    leaf = fmt.leaf_bytes(entry)
    assert len(leaf) == vector["leaf_length"], "leaf_length"
    assert vector.get("leaf", leaf.hex()) == leaf.hex(), "leaf"
    assert fmt.leaf_hash(leaf).hex() == entry["hash"], "hash"


def check_refused(vector):
    try:
        fmt.leaf_bytes(expand(vector["entry"]))
    except fmt.NotEncodable:
        return
    raise AssertionError("it was encoded")


def check_genesis(vector):
    found = fmt.genesis(uuid.UUID(vector["log_id"]), vector["chain"]).hex()
    assert found == vector["genesis"], "genesis"


def lines_of(vector):
    return [json.dumps(entry).encode() + b"\n" for entry in vector["entries"]]


def check_log(vector):
    found = fmt.verify(lines_of(vector), uuid.UUID(vector["log_id"]))
    assert [list(p[:3]) for p in found.problems] == vector["problems"], found.problems


def run(*arguments, stdin=b""):
    """The command's exit status and output."""
    output, real = io.StringIO(), sys.stdin
    sys.stdin = io.TextIOWrapper(io.BytesIO(stdin))
    try:
        with redirect_stdout(output), redirect_stderr(output):
            return fmt.main(["verify", *arguments]), output.getvalue()
    finally:
        sys.stdin = real


def check_command(log):
    """The exit statuses: intact, tampered, could not check."""
    lines = b"".join(lines_of(log))
    named = b'{"log_id": "%s"}\n' % log["log_id"].encode()
    other = "00000000-0000-0000-0000-000000000000"
    with tempfile.NamedTemporaryFile() as file:
        file.write(named + lines)
        file.flush()
        assert run(file.name)[0] == 0, "a file"
    for what, status, arguments, stdin in [
        ("an identity in the export", 0, [], named + lines),
        ("an identity from elsewhere", 0, ["--log-id", log["log_id"]], lines),
        ("another identity than the export's", 1, ["--log-id", other], named + lines),
        ("an empty log", 0, [], b'{"log_id": null}\n'),
        ("an empty export", 0, [], b""),
        ("an altered entry", 1, [], named + lines.replace(b"UPDATE", b"INSERT")),
        ("a time that is no number", 1, [], named + lines.replace(b'"at": 1700000000000001', b'"at": "Infinity"')),
        ("no identity", 2, [], lines),
        ("an identity that is none", 2, ["--log-id", "x"], lines),
        ("two identities", 2, [], named + named.replace(b"6f", b"00") + lines),
        ("no JSON", 2, [], named + b"oops\n"),
        ("no object", 2, [], named + b"[]\n"),
        ("a column that is missing", 2, [], named + lines.replace(b'"actor"', b'"nobody"')),
        ("a column of another format", 2, [], named + lines.replace(b'{"chain"', b'{"format": 2, "chain"')),
        ("no such file", 2, ["/does/not/exist"], b""),
    ]:
        found, output = run(*arguments, stdin=stdin)
        assert found == status, f"{what}: exit {found}, not {status}: {output}"


def check_page(vectors):
    page = (HERE.parent.parent / "docs" / "format.md").read_text(encoding="utf-8")
    vector = vectors["entries"][0]
    words = "".join(line.split(" ")[0] for line in page.replace("    ", "").splitlines() if line)
    assert vector["leaf"] in words, "the page's leaf"
    assert fmt.payload_bytes(vector["entry"]).hex() in words, "the page's payload"
    assert fmt.who_bytes(vector["entry"]).hex() in words, "the page's who-part"
    for text in (vector["who_digest"], vector["payload_digest"], vector["entry"]["hash"], vectors["genesis"][0]["genesis"]):
        assert f"= {text}\n" in page, f"the page has no {text}"


def check_tree(roots):
    """The leaves that the implementations of Certificate Transparency test with, and the roots of their trees."""
    leaves = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
    tree = audit_chain_tree.Tree()
    assert tree.root().hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", "the empty tree"
    for leaf in leaves:
        tree.push(fmt.leaf_hash(bytes.fromhex(leaf)))
        if tree.size in roots:
            assert tree.root().hex() == roots[tree.size], f"the tree of {tree.size} leaves"


def check_row_ids(_):
    written = json.loads((HERE / "row_ids.json").read_text(encoding="utf-8"))
    assert written == row_ids.VECTORS, "row_ids.json is not what row_ids.py computes: an id must never change"


def main():
    vectors = json.loads((HERE / "format1.json").read_text(encoding="utf-8"))
    checks = [(f"genesis {v['log_id']} {v['chain']}", check_genesis, v) for v in vectors["genesis"]]
    checks += [(f"entry: {v['name']}", check_entry, v) for v in vectors["entries"]]
    checks += [(f"refused: {v['name']}", check_refused, v) for v in vectors["refused"]]
    checks += [(f"log: {v['name']}", check_log, v) for v in vectors["logs"]]
    checks += [("the command's exit status", check_command, vectors["logs"][0])]
    checks += [("the worked example of docs/format.md", check_page, vectors)]
    roots = {
        1: "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        8: "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    }
    checks += [("the tree of RFC 6962", check_tree, roots), ("row ids", check_row_ids, None)]
    failed = 0
    for name, check, vector in checks:
        try:
            check(vector)
        except Exception as why:  # a vector may break anything: the others are still checked
            failed += 1
            print(f"FAILED {name}: {type(why).__name__}: {why}")
    print(f"{len(checks) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""Makes row_ids.json: row ids (crates/core/src/row_id.rs) as a second implementation computes them."""

import hashlib
import json
import pathlib


def table_part(schema, table):
    return hashlib.sha256(schema.encode() + b"\0" + table.encode()).digest()[:8]


def key_part(values):
    texts = [text.encode() for text in values]
    if sum(len(text) + 1 for text in texts) <= 96:
        return b"".join(bytes([len(text)]) + text for text in texts)
    return b"\xff" + hashlib.sha256(b"".join(len(text).to_bytes(4, "big") + text for text in texts)).digest()


class Raw(str):
    """The JSON text of a value that is no string."""


def row_key_text(key):
    return "{" + ",".join(f"{json.dumps(name)}:{v if isinstance(v, Raw) else json.dumps(v)}" for name, v in key.items()) + "}"


def vector(schema, table, key, old=None):
    part = b"" if key is None else key_part(key.values())
    left = None
    if key is not None and old is not None:
        before = {name: old.get(name, value) for name, value in key.items()}
        if list(map(str, before.values())) != list(map(str, key.values())):
            left = (table_part(schema, table) + key_part(before.values())).hex()
    return {
        "schema": schema,
        "table": table,
        "row_key": None if key is None else row_key_text(key),
        "old_row": None if old is None else row_key_text(old),
        "id": (table_part(schema, table) + part).hex(),
        "left": left,
    }


VECTORS = [
    vector("public", "accounts", None),
    vector("public", "accounts", None, {"id": Raw("1")}),
    vector("public", "accounts", {"id": Raw("1")}),
    vector("public", "accounts", {"id": "1"}),
    vector("public", "accounts", {"id": Raw("-1")}),
    vector("public", "accounts", {"id": Raw("1.50")}),
    vector("public", "accounts", {"id": Raw("null")}),
    vector("public", "accounts", {"id": Raw("true")}),
    vector("public", "accounts", {"id": Raw('{"masked":true}')}),
    vector("public", "accounts", {"id": Raw('{"sha256":"00","length":4000}')}),
    vector("public", "accounts", {"id": Raw('[1, "a"]')}),
    vector("public", "accounts", {"id": Raw("9223372036854775807")}),
    vector("public", "accounts", {"a": Raw("1"), "b": Raw("2")}),
    vector("public", "accounts", {"b": Raw("2"), "a": Raw("1")}),
    vector("public", "accounts", {"a": "", "b": "12"}),
    vector("public", "accounts", {"a": "1", "b": "2"}),
    vector("public", "accounts", {"id": "Zo\u00eb \U0001f600 \\ \" \n"}),
    vector("public", "accounts", {"id": "2026-11-27 00:00:00+00"}),
    vector("public", "accounts", {"id": Raw("2")}, {"id": Raw("1"), "name": "x"}),
    vector("public", "accounts", {"id": Raw("2")}, {"name": "x"}),
    vector("public", "accounts", {"id": Raw("2")}, {"id": Raw("2"), "name": "x"}),
    vector("public", "accounts", {"a": "x", "b": "y"}, {"b": "z"}),
    vector("S\u00e9", "T a b", {"id": Raw("1")}),
    vector("", "", {"id": Raw("1")}),
    vector("ab", "c", {"id": Raw("1")}),
    vector("a", "bc", {"id": Raw("1")}),
    vector("s", "t", {"a": "x" * 47, "b": "y" * 47}),
    vector("s", "t", {"a": "x" * 47, "b": "y" * 48}),
]

if __name__ == "__main__":
    path = pathlib.Path(__file__).with_name("row_ids.json")
    path.write_text("[\n" + ",\n".join("  " + json.dumps(v) for v in VECTORS) + "\n]\n")

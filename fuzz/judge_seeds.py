#!/usr/bin/env python3
"""Writes the seeds of the fuzz target judge, in fuzz/seeds/judge.

Its input says how to build a log and how to damage it (fuzz_targets/judge.rs). One seed has the shape of each log of the
test vectors, and damage like the one there; one seed has each damage that crates/core/src/testing.rs knows. Run it
again if one of these changes.
"""
import json
import pathlib
import re

HERE = pathlib.Path(__file__).resolve().parent
VECTORS = json.loads((HERE / "../tests/vectors/format1.json").read_text())
KNOWN = re.findall(
    r'^    \("(.*)", \|log', (HERE / "../crates/core/src/testing.rs").read_text().split("DAMAGES: ")[1], re.MULTILINE
)
# The damage that is like what a kind of problem comes from.
LIKE = {
    "altered": "a payload column",
    "clock": "a number of an entry",
    "unlinked": "an entry rewritten, its hash and all later ones recomputed",
    "missing": "an entry dropped",
    "duplicate": "an entry twice",
    "erased_without_record": "a payload erased without a record",
}


def number(value):
    """As Input::number reads it."""
    return bytes([value]) if value < 255 else b"\xff" + value.to_bytes(8, "big")


def damage(name, place=1, what=3):
    """The numbers 0 to 3 are other kinds of damage."""
    which = KNOWN.index(name)
    which += len(KNOWN) if which < 4 else 0
    return bytes([which]) + number(place) + number(what)


def seed(chains, damages=(), trusted=False, rounds=2, rest=b""):
    """A log whose rounds add so many entries to each chain, and end with a checkpoint."""
    log = bytes([1, rounds]) + bytes([len(chains), *chains]) * rounds
    return log + bytes([trusted, len(damages)]) + b"".join(damages) + bytes([1]) + number(7) + rest


def seeds():
    for log in VECTORS["logs"]:
        lengths = {}
        for entry in log["entries"]:
            lengths[entry["chain"]] = lengths.get(entry["chain"], 0) + 1
        kinds = dict.fromkeys(problem[0] for problem in log["problems"])
        text = "".join(json.dumps(entry) + "\n" for entry in log["entries"][:1]).encode()
        yield log["name"], seed(list(lengths.values())[:3], [damage(LIKE[kind]) for kind in kinds][:3], rest=text)
    for trusted, name in enumerate(KNOWN):
        yield "damage: " + name, seed([3, 70, 30], [damage(name)], trusted=trusted % 2 == 1, rounds=3)
    spans = b"\x00" + number(2**40) + b"\x01" + number(1) + number(2)
    yield "raw: a span", seed([3, 2], [spans])
    yield "raw: a tile", seed([90, 90, 90], [b"\x01\x00" + number(1)], rest=bytes(32 * 256))
    note = (HERE / "seeds/checkpoint/one").read_bytes()
    yield "raw: a note", seed([3, 2], [b"\x02"], rest=note)
    yield "raw: a size", seed([3, 2], [b"\x03" + number(2**63)])


folder = HERE / "seeds/judge"
folder.mkdir(exist_ok=True)
for old in folder.iterdir():
    old.unlink()
for name, data in seeds():
    (folder / re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")).write_bytes(data)

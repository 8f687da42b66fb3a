#!/usr/bin/env python3
"""audit_chain's checkpoints, a second time: written from docs/checkpoints.md, with Python's standard library alone.

    audit_chain_tree.py [--checkpoint FILE] [LOG]

reads an exported log with its spans and checkpoints (export.sql and export-tree.sql, one after the other; standard input
without LOG), computes the RFC 6962 tree from the entries' contents, and compares every recorded checkpoint and the one
that is given. Signatures are not checked. Exit status: 0 it is the log of the checkpoints, 1 it is not, 2 it could not
be checked. The entries of a large log are held in memory: audit-chain does the same in bounded memory.
"""

import argparse
import base64
import hashlib
import json
import re
import sys

import audit_chain_format as fmt


class Tree:
    """The roots of a growing Merkle tree (RFC 6962, section 2.1): one hash for each complete subtree on its right edge."""

    def __init__(self):
        self.size = 0
        self.edge = []

    def push(self, leaf_hash):
        self.edge.append(leaf_hash)
        self.size += 1
        complete = self.size
        while complete % 2 == 0:
            right = self.edge.pop()
            self.edge.append(node_hash(self.edge.pop(), right))
            complete //= 2

    def root(self):
        if not self.edge:
            return hashlib.sha256().digest()
        root = self.edge[-1]
        for left in reversed(self.edge[:-1]):
            root = node_hash(left, root)
        return root


def node_hash(left, right):
    return hashlib.sha256(b"\x01" + left + right).digest()


# The extension line of a checkpoint: a UUID of version 7.
INCARNATION = "incarnation [0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"


def parse_note(note):
    """The origin, size and root that a checkpoint's note says."""
    lines = note.split("\n")
    if len(lines) > 4 and re.fullmatch(INCARNATION, lines[3]):
        del lines[3]
    if len(lines) < 4 or lines[3] != "":
        raise fmt.NotCheckable("a checkpoint is three lines and an incarnation, and signatures after an empty one")
    try:
        return lines[0], int(lines[1]), base64.b64decode(lines[2], validate=True)
    except ValueError as why:
        raise fmt.NotCheckable(f"not a checkpoint: {why}") from None


class Stored:
    """What is stored of the tree of a pruned log: its tiles, and the hashes of pruned entries that no complete tile has."""

    def __init__(self):
        self.tiles, self.leaves = {}, {}
        self.first_chain, self.pruning = 0, None

    def node(self, height, index):
        """The root of the subtree of 2**height leaves with this number; None if it is not stored."""
        if height % 8 == 0:
            tile = self.tiles.get((height // 8, index // 256))
            if tile is not None:
                return tile[index % 256 * 32:][:32]
            if height == 0:
                return self.leaves.get(index)
        left, right = self.node(height - 1, 2 * index), self.node(height - 1, 2 * index + 1)
        return None if left is None or right is None else node_hash(left, right)

    def tree(self):
        """The tree of the leaves before the minimum index."""
        tree = Tree()
        tree.size = self.pruning["minimum_index"]
        first = 0
        for height in reversed(range(tree.size.bit_length())):
            if tree.size >> height & 1:
                tree.edge.append(self.node(height, first >> height))
                first += 1 << height
        if None in tree.edge:
            raise fmt.NotCheckable("the hashes above the pruned entries are not there: export them with export-tree.sql")
        return tree


def read(lines):
    """The log's identity, its entries' hashes by place, the spans, the recorded checkpoints, and what is stored of the tree."""
    log_id, forks, hashes, spans, checkpoints, stored = None, [], {}, [], [], Stored()
    for number, line in enumerate(lines, 1):
        try:
            value = json.loads(line)
        except ValueError as why:
            raise fmt.NotCheckable(f"line {number} is not JSON: {why}") from None
        if "span" in value:
            spans.append(value["span"])
        elif "tile" in value:
            stored.tiles[tuple(value["tile"])] = bytes.fromhex(value["hashes"])
        elif "pruned_leaf" in value:
            stored.leaves[value["pruned_leaf"]] = bytes.fromhex(value["hash"])
        elif "tree_size" in value:
            checkpoints.append(value)
        elif "log_id" in value:
            log_id = value["log_id"]
        elif "fork" in value:
            forks.append((value["forked_at"], value["fork"]))
        else:
            try:
                hashes[value["chain"], value["seq"]] = entry_hash = fmt.entry_hash(value)
                detail = fmt.detail_of(value, "PRUNE") if entry_hash.hex() == value["hash"] else None
                first_chain = fmt.pruned_before(detail, value["chain"], int(value["at"])) if detail else 0
                if first_chain > stored.first_chain:
                    stored.first_chain, stored.pruning = first_chain, detail
            except fmt.NotEncodable:
                hashes[value["chain"], value["seq"]] = None
    return log_id, forks, hashes, spans, checkpoints, stored


def verify(lines, kept=None):
    """Returns the problems, in words, and the number of checkpoints that were compared."""
    log_id, forks, hashes, spans, checkpoints, stored = read(lines)
    problems, compared = [], 0

    def origin(size):
        later = [fork for forked_at, fork in forks if size > forked_at]
        return f"audit_chain/{later[-1] if later else log_id}"

    wanted = {}
    for checkpoint in checkpoints:
        said = parse_note(checkpoint["note"])
        if said != (origin(checkpoint["tree_size"]), checkpoint["tree_size"], bytes.fromhex(checkpoint["root"])):
            problems.append(f"the note of the checkpoint of {checkpoint['tree_size']} entries says something else")
        wanted.setdefault(checkpoint["tree_size"], []).append(("recorded", bytes.fromhex(checkpoint["root"])))
    if kept is not None:
        said = parse_note(kept)
        if said[0] != origin(said[1]):
            problems.append(f"the kept checkpoint is of {said[0]}, this log is {origin(said[1])}")
        wanted.setdefault(said[1], []).append(("kept", said[2]))

    tree, covered = Tree(), {}
    if stored.pruning:
        tree = stored.tree()
        if tree.root().hex() != stored.pruning["root"]:
            problems.append("the pruned entries have another root than their PRUNE entry says")
        for size in [size for size in wanted if size < tree.size]:
            if any(which == "kept" for which, _ in wanted.pop(size)):
                raise fmt.NotCheckable(f"the kept checkpoint is of {size} entries, which were pruned")
        for which, root in wanted.pop(tree.size, ()):
            compared += 1
            if root != tree.root():
                problems.append(f"the {which} checkpoint of {tree.size} entries is not that of these entries")
        spans = [span for span in spans if span[0] >= tree.size]
    for leaf_index, chain, first, last in spans:
        if chain < stored.first_chain:
            covered.setdefault(chain, first - 1)
            hashes.update({(chain, seq): stored.node(0, leaf_index + seq - first) for seq in range(first, last + 1)})
        if leaf_index != tree.size or first != covered.get(chain, 0) + 1 or last < first:
            problems.append(f"the span at leaf {leaf_index} does not continue those before it")
            break
        for seq in range(first, last + 1):
            entry_hash = hashes.get((chain, seq))
            if entry_hash is None:
                problems.append(f"a checkpoint covers entry ({chain}, {seq}), which is not there")
                break
            tree.push(entry_hash)
            for which, root in wanted.pop(tree.size, ()):
                compared += 1
                if root != tree.root():
                    problems.append(f"the {which} checkpoint of {tree.size} entries is not that of these entries")
        else:
            covered[chain] = last
            continue
        break
    for size in sorted(wanted):
        problems.append(f"a checkpoint covers {size} entries, the tree of this log has {tree.size}")
    return problems, compared


def main(arguments=None):
    parser = argparse.ArgumentParser(description="Measures an exported audit_chain log by its checkpoints.")
    parser.add_argument("--checkpoint", help="a file with a checkpoint that was kept elsewhere")
    parser.add_argument("log", nargs="?", help="the export; standard input by default")
    options = parser.parse_args(arguments)
    try:
        kept = None
        if options.checkpoint is not None:
            with open(options.checkpoint, encoding="utf-8") as file:
                kept = file.read()
        if options.log is None:
            problems, compared = verify(sys.stdin.buffer, kept)
        else:
            with open(options.log, "rb") as lines:
                problems, compared = verify(lines, kept)
    except (fmt.NotCheckable, OSError, KeyError, TypeError, ValueError) as why:
        print(f"could not check: {why}", file=sys.stderr)
        return 2
    for words in problems:
        print(words)
    print(f"{'NOT ' if problems else ''}the log of its checkpoints: {compared} compared, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())

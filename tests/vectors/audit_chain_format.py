#!/usr/bin/env python3
"""audit_chain's format 1, a second time: written from docs/format.md, with Python's standard library alone.

    audit_chain_format.py verify [--log-id UUID] [FILE]

reads an exported log (export.sql; one JSON object a line; standard input without FILE), prints every problem and a
summary. Exit status: 0 the log is intact, 1 it is tampered, 2 it could not be checked.

Without --log-id the identity is the one that the export begins with: the audited server's own word. Give the
identity that you keep elsewhere; where both are there and differ, the log is tampered.
"""

import argparse
import datetime
import hashlib
import json
import struct
import sys
import uuid

VERSION = 1
WHO = ("session_role", "effective_role", "actor", "application_name", "client_addr")
PAYLOAD = ("row_key", "old_row", "new_row", "detail", "statement")
COLUMNS = (
    "chain seq at xid operation table_schema table_name session_role effective_role actor application_name"
    " client_addr who_salt who_digest row_key old_row new_row detail statement salt payload_digest prev_hash hash"
).split()


class NotEncodable(Exception):
    """The entry has a value that format 1 cannot hold."""


class NotCheckable(Exception):
    """The input is not an export of a log."""


# --- Encoding (docs/format.md, sections 1 and 2) ---------------------------------------------------------------


def utf8(name, value):
    if not isinstance(value, str):
        raise NotEncodable(f"{name} is not text")
    try:
        return value.encode("utf-8")
    except UnicodeEncodeError:
        raise NotEncodable(f"{name} is not valid Unicode") from None


def put_str(name, value):
    data = utf8(name, value)
    if len(data) > 0xFFFE:
        raise NotEncodable(f"{name} has {len(data)} bytes, more than 65534")
    return struct.pack(">H", len(data)) + data


def put_opt(name, value):
    return b"\xff\xff" if value is None else put_str(name, value)


def put_blob(name, value):
    if value is None:
        return b"\xff\xff\xff\xff"
    data = utf8(name, value)
    if len(data) > 0xFFFFFFFE:
        raise NotEncodable(f"{name} has {len(data)} bytes, more than 4294967294")
    return struct.pack(">I", len(data)) + data


def put_int(name, code, value, low, high):
    if isinstance(value, bool) or not isinstance(value, int):
        raise NotEncodable(f"{name} is not an integer")
    if not low <= value <= high:
        raise NotEncodable(f"{name} {value} is out of range")
    return struct.pack(code, value)


def fixed(name, value, length):
    """The bytes that `length` pairs of hexadecimal digits spell."""
    try:
        data = bytes.fromhex(value)
    except (TypeError, ValueError):
        raise NotEncodable(f"{name} is not bytes in hexadecimal") from None
    if len(data) != length:
        raise NotEncodable(f"{name} has {len(data)} bytes, not {length}")
    return data


def number(value):
    """An integer, also where it came as a string (JSON readers elsewhere lose digits beyond 2**53)."""
    if isinstance(value, str):
        digits = value[1:] if value.startswith("-") else value
        if digits.isascii() and digits.isdigit():
            return int(value)
    return value


def who_bytes(entry):
    for name in ("session_role", "effective_role"):
        if entry[name] is None:
            raise NotEncodable(f"{name} is null")
    data = b"audit_chain who v1" + fixed("who_salt", entry["who_salt"], 16)
    return data + b"".join(put_blob(name, entry[name]) for name in WHO)


def who_digest(entry):
    """The who-part's digest: computed, or of an entry whose who-part was erased the stored one (section 4)."""
    if entry["who_digest"] is None:
        return hashlib.sha256(who_bytes(entry)).digest()
    return stored_digest("who_digest", entry, "who_salt", *WHO)


def payload_bytes(entry):
    data = fixed("salt", entry["salt"], 16)
    return data + b"".join(put_blob(name, entry[name]) for name in PAYLOAD)


def payload_digest(entry):
    """The payload's digest: computed, or of an erased entry the stored one (section 4)."""
    if entry["payload_digest"] is None:
        return hashlib.sha256(payload_bytes(entry)).digest()
    return stored_digest("payload_digest", entry, "salt", *PAYLOAD)


def stored_digest(digest, entry, *erased):
    left = [name for name in erased if entry[name] is not None]
    if left:
        raise NotEncodable(f"{digest} marks as erased what is still there: {', '.join(left)}")
    return fixed(digest, entry[digest], 32)


def leaf_bytes(entry):
    return b"".join((
        struct.pack(">B", VERSION),
        put_int("chain", ">I", number(entry["chain"]), 0, 2**31 - 1),
        put_int("seq", ">Q", number(entry["seq"]), 1, 2**63 - 1),
        fixed("prev_hash", entry["prev_hash"], 32),
        put_int("at", ">q", number(entry["at"]), -(2**63), 2**63 - 1),
        put_int("xid", ">Q", number(entry["xid"]), 0, 2**64 - 1),
        put_str("operation", entry["operation"]),
        put_opt("table_schema", entry["table_schema"]),
        put_opt("table_name", entry["table_name"]),
        who_digest(entry),
        payload_digest(entry),
    ))


def leaf_hash(leaf):
    return hashlib.sha256(b"\x00" + leaf).digest()


def entry_hash(entry):
    return leaf_hash(leaf_bytes(entry))


def genesis(log_id, chain):
    return hashlib.sha256(b"audit_chain genesis v1" + log_id.bytes + struct.pack(">I", chain)).digest()


# --- What was pruned and erased by rule (docs/format.md, section 5) --------------------------------------------


SEGMENT_CHAINS = 65536


def detail_of(entry, operation):
    """The detail of an entry of this kind; None if it has none, or is another."""
    if entry["operation"] != operation or entry["detail"] is None:
        return None
    try:
        detail = json.loads(entry["detail"])
    except ValueError:
        return None
    return detail if isinstance(detail, dict) else None


def erased_places(detail):
    """The part and the ranges of places that an ERASE entry names; None if it names none as it must."""
    try:
        part, places = detail["part"], [(int(c), int(first), int(last)) for c, first, last in detail["places"]]
        uuid.UUID(detail["request"])
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    ascending = all((a[0], a[2]) < (b[0], b[1]) for a, b in zip(places, places[1:]))
    if part not in ("payload", "who") or not ascending or any(not 0 < first <= last for _, first, last in places):
        return None
    return part, places


def microseconds(text):
    at = datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
    return (at - datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)) // datetime.timedelta(microseconds=1)


def pruned_before(detail, chain, at):
    """The first chain that remains, as a PRUNE entry says; 0 if it contradicts itself."""
    try:
        segment, first, last = detail["segment"], detail["first_chain"], detail["last_chain"]
        total, size = detail["pruned"], detail["minimum_index"]
        fits = (
            segment > 0 and first == (segment - 1) * SEGMENT_CHAINS and last == segment * SEGMENT_CHAINS - 1
            and chain > last and total["segments"] == segment and total["entries"] >= max(detail["entries"], size)
            and detail["checkpoint"]["size"] >= size and len(bytes.fromhex(detail["root"])) == 32
        )
        if detail["last_at"] is not None or detail["entries"] > 0:
            may_go = microseconds(detail["last_at"]) + detail["policy"]["keep_seconds"] * 1_000_000
            fits = fits and may_go <= at
        return last + 1 if fits else 0
    except (KeyError, TypeError, ValueError, AttributeError):
        return 0


# --- Checking (section 5) --------------------------------------------------------------------------------------


class Check:
    """Takes entries in any order; names every fault in the end, as (kind, chain, seq, words)."""

    def __init__(self, log_id):
        self.log_id = log_id
        self.entries = 0
        self.problems = []
        self.chains = {}
        self.erased = {"payload": set(), "who": set()}
        self.recorded = {"payload": [], "who": []}
        self.first_chain = 0

    def problem(self, kind, chain, seq, words):
        self.problems.append((kind, chain, seq, words))

    def add(self, entry):
        self.entries += 1
        chain, seq, at = (number(entry[name]) for name in ("chain", "seq", "at"))
        try:
            if entry_hash(entry) != fixed("hash", entry["hash"], 32):
                self.problem("altered", chain, seq, "its content does not give its hash")
            else:
                self.add_record(entry, chain, at)
                for part in self.erased:
                    if entry[f"{part}_digest"] is not None:
                        self.erased[part].add((chain, seq))
        except NotEncodable as why:
            self.problem("altered", chain, seq, str(why))
        if isinstance(chain, int) and isinstance(seq, int) and isinstance(at, int):
            links = self.chains.setdefault(chain, {})
            links.setdefault(seq, []).append((str(entry["prev_hash"]), str(entry["hash"]), at))


    def add_record(self, entry, chain, at):
        """What an intact entry says was erased or pruned."""
        detail = detail_of(entry, "ERASE")
        erased = detail and erased_places(detail)
        if erased:
            self.recorded[erased[0]] += erased[1]
        detail = detail_of(entry, "PRUNE")
        if detail:
            self.first_chain = max(self.first_chain, pruned_before(detail, chain, at))

    def finish(self):
        for chain, links in self.chains.items():
            if isinstance(chain, int) and chain < self.first_chain:
                self.problem("unlinked", chain, min(links), "its chain was pruned")
            else:
                self.finish_chain(chain, links)
        for part, places in self.erased.items():
            covered = {(c, seq) for c, first, last in self.recorded[part] for seq in range(first, last + 1)}
            before = None
            for chain, seq in sorted(places - covered, key=lambda place: (str(place[0]), str(place[1]).zfill(20))):
                # One problem for places that follow one another.
                if before != (chain, seq):
                    words = f"its {part} was erased, and no intact ERASE entry says so"
                    self.problem("erased_without_record", chain, seq, words)
                before = (chain, seq + 1) if isinstance(seq, int) else None
        self.problems.sort(key=lambda p: (str(p[1]).zfill(12), str(p[2]).zfill(20), p[0]))
        return self.problems

    def finish_chain(self, chain, links):
        expected = 1
        before, latest = None, None
        if 0 <= chain < 2**31:
            before = {genesis(self.log_id, chain).hex()}
        for seq in sorted(links):
            here = links[seq]
            for _ in here[1:]:
                self.problem("duplicate", chain, seq, "more than one entry claims this place")
            if seq != expected:
                if seq > expected:
                    self.problem("missing", chain, expected, f"entries {expected} to {seq - 1} are missing")
                before = None
            if before is not None and not any(prev in before for prev, _, _ in here):
                self.problem("unlinked", chain, seq, "prev_hash is not the hash of the entry before")
            first = min(at for _, _, at in here)
            if latest is not None and first < latest:
                self.problem("clock", chain, seq, f"dated {latest - first} microseconds before the entry before")
            before = {own for _, own, _ in here}
            latest = max(at for _, _, at in here)
            expected = seq + 1


# --- The command -----------------------------------------------------------------------------------------------


def read_lines(lines):
    """Yields ("log_id", UUID) and ("entry", dict)."""
    for place, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except ValueError as why:
            raise NotCheckable(f"line {place} is not JSON: {why}") from None
        if not isinstance(value, dict):
            raise NotCheckable(f"line {place} is not a JSON object")
        if set(value) == {"log_id"}:
            if value["log_id"] is not None:
                yield "log_id", parse_log_id(value["log_id"])
            continue
        unknown = sorted(set(value) - set(COLUMNS))
        if unknown:
            raise NotCheckable(f"line {place} has {', '.join(unknown)}: is this another format than 1?")
        absent = [name for name in COLUMNS if name not in value]
        if absent:
            raise NotCheckable(f"line {place} has no {', '.join(absent)}")
        yield "entry", value


def parse_log_id(text):
    try:
        return uuid.UUID(text)
    except (AttributeError, TypeError, ValueError):
        raise NotCheckable(f"the log's identity is not a UUID: {text!r}") from None


def verify(lines, log_id=None):
    """Returns the finished Check of an export."""
    check = Check(log_id)
    for kind, value in read_lines(lines):
        if kind == "entry":
            check.add(value)
        elif log_id is None:
            if check.log_id is not None and check.log_id != value:
                raise NotCheckable("the export names two identities")
            check.log_id = value
        elif value != log_id:
            check.problem("unlinked", None, None, f"the log says it is {value}, not {log_id}")
    if check.entries and check.log_id is None:
        raise NotCheckable("the log's identity is not known: the export does not begin with it; give --log-id")
    check.finish()
    return check


def main(arguments=None):
    parser = argparse.ArgumentParser(description="Verifies an exported audit_chain log.")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("verify", help="print every problem; exit 0 intact, 1 tampered, 2 could not check")
    command.add_argument("--log-id", help="the log's identity, as kept by the auditor")
    command.add_argument("file", nargs="?", help="the export; standard input by default")
    options = parser.parse_args(arguments)
    try:
        log_id = parse_log_id(options.log_id) if options.log_id is not None else None
        if options.file is None:
            check = verify(sys.stdin.buffer, log_id)
        else:
            with open(options.file, "rb") as lines:
                check = verify(lines, log_id)
    except (NotCheckable, OSError) as why:
        print(f"could not check: {why}", file=sys.stderr)
        return 2
    for kind, chain, seq, words in check.problems:
        print(f"{kind} chain={chain} seq={seq}: {words}")
    counts = f"{check.entries} entries in {len(check.chains)} chains"
    if check.problems:
        print(f"tampered, {len(check.problems)} problems: {counts}")
        return 1
    print(f"intact: {counts}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

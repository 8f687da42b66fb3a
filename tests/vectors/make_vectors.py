#!/usr/bin/env python3
"""Makes format1.json and the worked example of docs/format.md. Format 1 is fixed: run it to add vectors, never to
change one.

A text of the form {"repeat": "x", "times": n} stands for n times that text: it keeps the file small.
"""

import copy
import hashlib
import json
import pathlib
import random
import uuid

import audit_chain_format as fmt
from check import expand

HERE = pathlib.Path(__file__).parent
LOG = uuid.UUID("6f1d9c2e-5b7a-4c3d-8e9f-0a1b2c3d4e5f")
OTHER_LOG = uuid.UUID("00000000-0000-0000-0000-000000000000")
T0 = 1_700_000_000_000_001


def repeat(text, times):
    return {"repeat": text, "times": times}


def salt(name, what="salt"):
    return hashlib.sha256(f"{what} of {name}".encode()).digest()[:16].hex()


def base(name, **fields):
    entry = dict.fromkeys(fmt.COLUMNS)
    entry.update(
        chain=0, seq=2, at=T0, xid="742", operation="UPDATE", table_schema="public", table_name="accounts",
        session_role="app", effective_role="app", who_salt=salt(name, "who_salt"), salt=salt(name),
        prev_hash=hashlib.sha256(f"the entry before {name}".encode()).hexdigest(),
    )
    entry.update(fields)
    return entry


NOBODY = dict.fromkeys(("who_salt", *fmt.WHO))

ENTRIES = [
    ("the smallest update", dict(
        row_key='{"id":1}', old_row='{"balance":100}', new_row='{"id":1,"balance":90}')),
    ("every nullable field null", dict(operation="EVENT", table_schema=None, table_name=None)),
    ("every nullable field empty", dict(
        table_schema="", table_name="", session_role="", effective_role="", actor="", application_name="",
        client_addr="", row_key="", old_row="", new_row="", detail="", statement="", operation="")),
    ("every field filled", dict(
        chain=31, seq=4_000_000_000, xid="4294968038", actor="alice@example.org", application_name="psql",
        client_addr="192.0.2.7", row_key='{"id":7}', old_row='{"name":"a"}', new_row='{"id":7,"name":"b"}',
        detail='{"root":"public.people"}', statement="UPDATE people SET name = 'b' WHERE id = 7")),
    ("INSERT", dict(operation="INSERT", row_key='{"id":1}', new_row='{"id":1,"balance":100}')),
    ("UPDATE that changes nothing", dict(row_key='{"id":1}', old_row="{}", new_row='{"id":1,"balance":100}')),
    ("DELETE", dict(operation="DELETE", row_key='{"id":1}', old_row='{"id":1,"balance":100}')),
    ("TRUNCATE", dict(operation="TRUNCATE")),
    ("BASELINE", dict(operation="BASELINE", row_key='{"id":1}', new_row='{"id":1,"balance":100}')),
    ("EVENT", dict(
        operation="EVENT", table_schema=None, table_name=None,
        detail='{"action":"login","data":{"ok":true}}')),
    ("DDL", dict(operation="DDL", detail='{"tag":"ALTER TABLE","object":"public.accounts"}')),
    ("ENABLE", dict(operation="ENABLE", detail='{"exclude_columns":["password"]}')),
    ("DISABLE", dict(operation="DISABLE", detail='{"reason":"migration"}')),
    ("an operation of later days", dict(operation="PRUNE", detail="{}")),
    ("a row without a key", dict(operation="INSERT", new_row='{"note":null}')),
    ("effective role differs", dict(effective_role="accounts_owner")),
    ("Unicode in every text", dict(
        table_schema="schéma", table_name="表", session_role="Ünïcödé", effective_role="роль",
        actor="أليس", application_name="👩🏽‍💻", row_key='{"ключ":"значение"}',
        old_row='{"name":"Zoë"}', new_row='{"name":"Zoe\u0308"}', detail='{"action":"🔏"}',
        statement="UPDATE \"表\" SET name = 'Zoe\u0308'")),
    ("Unicode composed", dict(actor="Zo\u00eb")),
    ("Unicode decomposed", dict(actor="Zoe\u0308")),
    ("highest code point", dict(actor="\U0010ffff")),
    ("json text with spaces and line ends", dict(new_row='{ "b" : 1.0,\n\t"a" : 1e2,\r\n "a" : 2 }')),
    ("json text with escapes", dict(new_row='{"a":"\\u00e9 \\\\ \\" \\n \\/ \\u0000"}')),
    ("statement with control characters", dict(statement="SELECT '\x01\x1f\x7f\u2028'\r\n-- \\ \" \t")),
    ("identifier with quotes and dots", dict(table_schema='a"b', table_name="c.d\\e")),
    ("IPv4 address", dict(client_addr="203.0.113.255")),
    ("IPv4 network", dict(client_addr="203.0.113.0/24")),
    ("IPv6 address", dict(client_addr="2001:db8::7")),
    ("IPv6 with embedded IPv4", dict(client_addr="::ffff:192.0.2.7")),
    ("at: 1970-01-01 00:00:00 UTC", dict(at=0)),
    ("at: one microsecond before 1970", dict(at=-1)),
    ("at: PostgreSQL's epoch, 2000-01-01", dict(at=946_684_800_000_000)),
    ("at: 4714-11-24 BC, PostgreSQL's first", dict(at=-210_866_803_200_000_000)),
    ("at: smallest i64", dict(at=-(2**63))),
    ("at: largest i64", dict(at=2**63 - 1)),
    ("xid: 0", dict(xid="0")),
    ("xid: last before the epoch", dict(xid=str(2**32 - 1))),
    ("xid: first after the epoch", dict(xid=str(2**32))),
    ("xid: beyond 2^63", dict(xid=str(2**63 + 5))),
    ("xid: largest u64", dict(xid=str(2**64 - 1))),
    ("chain: largest integer", dict(chain=2**31 - 1)),
    ("seq: largest bigint", dict(seq=2**63 - 1)),
    ("seq: beyond 2^53", dict(seq=2**53 + 1)),
    ("text of 255 bytes", dict(table_name=repeat("x", 255))),
    ("text of 256 bytes", dict(table_name=repeat("x", 256))),
    ("text of 65534 bytes, the longest", dict(table_schema=repeat("x", 0xFFFE))),
    ("text of 65534 bytes in two-byte letters", dict(table_name=repeat("é", 0x7FFF))),
    ("actor of 65535 bytes", dict(actor=repeat("x", 0xFFFF))),
    ("actor of 65536 bytes", dict(actor=repeat("x", 0x10000))),
    ("application name of 3000000 bytes", dict(application_name=repeat("表", 1_000_000))),
    ("blob of 65535 bytes", dict(new_row=repeat("x", 0xFFFF))),
    ("blob of 65536 bytes", dict(new_row=repeat("x", 0x10000))),
    ("blob of 3000000 bytes", dict(statement=repeat("表", 1_000_000))),
    ("salt of zeros", dict(salt="00" * 16)),
    ("salt of ones", dict(salt="ff" * 16)),
    ("who_salt of zeros", dict(who_salt="00" * 16)),
    ("who_salt that is the payload's", dict(salt="07" * 16, who_salt="07" * 16)),
    ("prev_hash of zeros", dict(prev_hash="00" * 32)),
    ("erased payload", dict(
        salt=None, payload_digest=hashlib.sha256(b"an erased payload's digest").hexdigest())),
    ("erased payload of an event", dict(
        operation="EVENT", table_schema=None, table_name=None, salt=None, payload_digest="ff" * 32)),
    ("erased who-part", dict(
        NOBODY, row_key='{"id":1}', new_row='{"id":1,"balance":100}',
        who_digest=hashlib.sha256(b"an erased who-part's digest").hexdigest())),
    ("erased who-part and payload", dict(NOBODY, who_digest="ee" * 32, salt=None, payload_digest="ff" * 32)),
]

REFUSED = [
    ("text of 65535 bytes", dict(table_name=repeat("x", 0xFFFF))),
    ("table name of 65536 bytes", dict(table_name=repeat("é", 0x8000))),
    ("operation of 65535 bytes", dict(operation=repeat("x", 0xFFFF))),
    ("no session_role", dict(session_role=None)),
    ("no effective_role", dict(effective_role=None)),
    ("no who_salt", dict(who_salt=None)),
    ("who_salt of 15 bytes", dict(who_salt="00" * 15)),
    ("who_digest of 31 bytes", dict(NOBODY, who_digest="00" * 31)),
    ("neither who-part nor digest", dict(NOBODY)),
    *((f"who_digest beside {name}", dict(NOBODY, **{name: value}, who_digest="00" * 32)) for name, value in [
        ("session_role", "app"), ("effective_role", ""), ("actor", ""), ("application_name", ""),
        ("client_addr", "192.0.2.7"), ("who_salt", "00" * 16)]),
]


def finish(entry):
    """Fills in an entry's hash."""
    entry["hash"] = fmt.entry_hash(entry).hex()
    return entry


def chain_of(log_id, chain, length, start=T0):
    """A whole chain: insert, updates, the last one a delete."""
    entries = []
    for seq in range(1, length + 1):
        name = f"chain {chain} seq {seq}"
        old, new = '{"id":1,"n":%d}' % (seq - 1), '{"id":1,"n":%d}' % seq
        operation, images = "UPDATE", dict(old_row='{"n":%d}' % (seq - 1), new_row=new)
        if seq == 1:
            operation, images = "INSERT", dict(new_row=new)
        elif seq == length:
            operation, images = "DELETE", dict(old_row=old)
        before = entries[-1]["hash"] if entries else fmt.genesis(log_id, chain).hex()
        entries.append(finish(base(
            name, chain=chain, seq=seq, at=start + 5 * (seq // 2), xid=str(700 + seq), operation=operation,
            prev_hash=before, row_key='{"id":1}', **images)))
    return entries


def erase(entry):
    entry["payload_digest"] = fmt.payload_digest(entry).hex()
    for name in ("salt", *fmt.PAYLOAD):
        entry[name] = None


def erase_who(entry):
    entry["who_digest"] = fmt.who_digest(entry).hex()
    entry.update(NOBODY)


def recorded(entries, operation, detail, at=None, **fields):
    """Appends an entry that has only a detail."""
    before = entries[-1] if entries else None
    chain = before["chain"] if before else 7
    seq = before["seq"] + 1 if before else 1
    entries.append(finish(base(
        f"{operation} {chain} {seq}", chain=chain, seq=seq, at=max(at or 0, before["at"] if before else T0 + 100),
        xid=str(900 + seq), operation=operation, table_schema=None, table_name=None,
        prev_hash=before["hash"] if before else fmt.genesis(LOG, chain).hex(),
        detail=json.dumps(detail, separators=(",", ":")), **fields)))


def erasures(*parts, lost=None, **changed):
    """A chain of ERASE entries, one for each part and its places."""
    entries = []
    for part, places in parts:
        count = sum(last - first + 1 for _, first, last in places)
        detail = {"part": part, "request": str(LOG), "entries": count, "places": places, "reason": "a request"}
        recorded(entries, "ERASE", dict(detail, **changed))
    if lost:
        erase(entries[lost - 1])
    return entries


def pruning(entries, **changed):
    """Entries of the third segment, and one that says that the first two were pruned."""
    root = hashlib.sha256(b"the root of what was pruned").hexdigest()
    detail = {
        "segment": 2, "first_chain": 65536, "last_chain": 131071, "chains": 1, "entries": 10,
        "first_at": "2023-11-14T22:13:20.000001Z", "last_at": "2023-11-14T22:13:30.000001+00:00",
        "first_leaf": 20, "last_leaf": 29, "minimum_index": 30, "root": root, "checkpoint": {"size": 34, "root": root},
        "policy": {"keep": "1 day", "keep_seconds": 86400, "locked": True}, "export": None, "disposable": True,
        "reason": None, "pruned": {"segments": 2, "entries": 30, "since": "2023-11-14T22:13:20.000001Z"}}
    entries = copy.deepcopy(entries)
    recorded(entries, "PRUNE", dict(detail, **changed))
    return entries


def relink(log_id, entries):
    """Rewrites a chain so that each entry is consistent with the one before."""
    before = fmt.genesis(log_id, entries[0]["chain"]).hex()
    for entry in entries:
        entry["prev_hash"] = before
        before = finish(entry)["hash"]


def logs():
    def log(name, entries, problems=(), log_id=LOG):
        found = fmt.verify([json.dumps(entry).encode() for entry in entries], log_id).problems
        assert [p[:3] for p in found] == [tuple(p) for p in problems], (name, found)
        return dict(name=name, log_id=str(log_id), entries=copy.deepcopy(entries), problems=[list(p) for p in problems])

    three, five = chain_of(LOG, 0, 3), chain_of(LOG, 0, 5)

    def change(seq, source=five, **fields):
        entries = copy.deepcopy(source)
        entries[seq - 1].update(fields)
        return entries

    def without(*seqs):
        return [entry for entry in copy.deepcopy(five) if entry["seq"] not in seqs]

    yield log("a whole chain of three", three)
    yield log("no entries", [])
    shuffled = [*five, *chain_of(LOG, 1, 4), *chain_of(LOG, 17, 2)]
    random.Random(1).shuffle(shuffled)
    yield log("three chains in no order", shuffled)
    erased = copy.deepcopy(five)
    erase(erased[2])
    record = erasures(("payload", [[0, 3, 3]]))
    yield log("an erased entry", erased + record)
    nobody = copy.deepcopy(five)
    erase_who(nobody[1])
    erase_who(nobody[3])
    both = erasures(("who", [[0, 2, 2], [0, 4, 4]]))
    yield log("erased who-parts", nobody + both)
    erase_who(erased[2])
    yield log("an erased entry whose who-part is erased, too", erased + erasures(
        ("payload", [[0, 3, 3]]), ("who", [[0, 1, 4]])))
    yield log("a payload and a who-part erased, a record of the payload only", erased + record, [
        ("erased_without_record", 0, 3)])
    yield log("erased who-parts without a record", nobody, [
        ("erased_without_record", 0, 2), ("erased_without_record", 0, 4)])
    erase_who(nobody[2])
    yield log("erased who-parts that follow one another are one problem", nobody, [("erased_without_record", 0, 2)])
    yield log("the record of erased who-parts is itself erased", nobody + erasures(
        ("who", [[0, 2, 4]]), ("payload", [[7, 1, 1]]), lost=1), [("erased_without_record", 0, 2)])
    for name, detail in [
        ("places that overlap", {"places": [[0, 2, 3], [0, 3, 4]]}), ("a place from 0", {"places": [[0, 0, 4]]}),
        ("no request", {"request": None}), ("another part", {"part": "all"}), ("a range backwards", {"places": [[0, 4, 2]]}),
    ]:
        yield log(f"a record of erasures with {name}", nobody + erasures(("who", [[0, 2, 4]]), **detail), [
            ("erased_without_record", 0, 2)])
    remains = chain_of(LOG, 2 * 65536, 4, T0 + 10**12)
    yield log("a pruned log", pruning(remains))
    yield log("a pruned segment put back", five + pruning(remains), [("unlinked", 0, 1)])
    yield log("a segment that was pruned too early does not count as pruned", five[1:] + pruning(
        remains, policy={"keep": "1 year", "keep_seconds": 31557600, "locked": False}), [("missing", 0, 1)])
    yield log("a PRUNE entry of other chains", five[1:] + pruning(remains, last_chain=65535), [("missing", 0, 1)])
    yield log("a PRUNE entry that lies in what it pruned", five[1:] + pruning(
        chain_of(LOG, 65536, 4, T0 + 10**12)), [("missing", 0, 1)])

    yield log("the newest entries cut off: not for a chain to see", without(4, 5))
    rewritten = change(3, new_row='{"id":1,"n":999}')
    relink(LOG, rewritten)
    yield log("a history rewritten to its end: not for a chain to see", rewritten)

    yield log("a changed row", change(3, new_row='{"id":1,"n":999}'), [("altered", 0, 3)])
    yield log("a space in the json text", change(3, new_row='{"id":1, "n":3}'), [("altered", 0, 3)])
    yield log("null for an empty text", change(3, source=[
        *five[:2], finish(dict(five[2], actor="")), *five[3:]], actor=None), [("altered", 0, 3), ("unlinked", 0, 4)])
    yield log("a changed time", change(2, at=five[1]["at"] + 1), [("altered", 0, 2), ("clock", 0, 3)])
    yield log("a changed actor", change(1, actor="mallory"), [("altered", 0, 1)])
    for name in fmt.WHO:
        yield log(f"another {name}", change(2, **{name: "192.0.2.8"}), [("altered", 0, 2)])
    yield log("another who_salt", change(2, who_salt="00" * 16), [("altered", 0, 2)])
    yield log("no who_salt", change(2, who_salt=None), [("altered", 0, 2)])
    digest = fmt.who_digest(five[2]).hex()
    yield log("a who-part marked as erased, with another actor", change(
        3, who_digest=digest, actor="mallory"), [("altered", 0, 3)])
    yield log("only the actor erased", change(3, **dict(NOBODY, session_role="app", effective_role="app",
        who_digest=digest)), [("altered", 0, 3)])
    yield log("who-part erased with another digest", change(3, **NOBODY, who_digest="00" * 32), [("altered", 0, 3)])
    yield log("who-part and payload digests exchanged", change(
        3, **NOBODY, who_digest=fmt.payload_digest(five[2]).hex(), payload_digest=digest, salt=None,
        **dict.fromkeys(fmt.PAYLOAD)), [("altered", 0, 3)])
    yield log("a changed xid", change(1, xid="1"), [("altered", 0, 1)])
    yield log("another salt", change(2, salt="00" * 16), [("altered", 0, 2)])
    yield log("no salt", change(2, salt=None), [("altered", 0, 2)])
    digest = fmt.payload_digest(five[2]).hex()
    yield log("marked as erased with another row", change(
        3, payload_digest=digest, new_row='{"id":1,"n":999}'), [("altered", 0, 3)])
    yield log("erased with another digest", change(
        3, payload_digest="00" * 32, salt=None, **dict.fromkeys(fmt.PAYLOAD)), [("altered", 0, 3)])
    yield log("a changed row with its hash made anew", [
        *five[:2], finish(dict(five[2], new_row='{"id":1,"n":999}')), *copy.deepcopy(five[3:])],
        [("unlinked", 0, 4)])
    yield log("a hole", without(3), [("missing", 0, 3)])
    yield log("two holes", without(2, 4), [("missing", 0, 2), ("missing", 0, 4)])
    yield log("a first entry that is missing", without(1), [("missing", 0, 1)])
    yield log("a chain that begins late", without(1, 2, 3), [("missing", 0, 1)])
    renumbered = [dict(entry, seq=entry["seq"] - 1) for entry in without(1)]
    yield log("a first entry removed and the rest numbered anew", renumbered, [
        ("altered", 0, 1), ("unlinked", 0, 1), ("altered", 0, 2), ("altered", 0, 3), ("altered", 0, 4)])
    yield log("a chain of another log", chain_of(OTHER_LOG, 0, 3), [("unlinked", 0, 1)])
    moved = [finish(dict(entry, chain=1)) for entry in copy.deepcopy(three[:1])]
    yield log("a chain under another number", moved, [("unlinked", 1, 1)])
    yield log("an entry twice", [*five, five[1]], [("duplicate", 0, 2)])
    back = copy.deepcopy(five)
    back[3]["at"] -= 1_000_000
    relink(LOG, back)
    yield log("a clock that goes back", back, [("clock", 0, 4)])


def main():
    entries = []
    for name, fields in ENTRIES:
        entry = base(name, **fields)
        full = expand(entry)
        leaf = fmt.leaf_bytes(full)
        entry["hash"] = fmt.leaf_hash(leaf).hex()
        vector = dict(
            name=name, entry=entry, who_digest=fmt.who_digest(full).hex(),
            payload_digest=fmt.payload_digest(full).hex(), leaf_length=len(leaf))
        if len(leaf) < 1000:
            vector["leaf"] = leaf.hex()
        entries.append(vector)
    ids = [LOG, OTHER_LOG, uuid.UUID("ffffffff-ffff-ffff-ffff-ffffffffffff"), uuid.UUID(int=1)]
    vectors = dict(
        format=1,
        genesis=[
            dict(log_id=str(log_id), chain=chain, genesis=fmt.genesis(log_id, chain).hex())
            for log_id in ids for chain in (0, 1, 256, 2**31 - 1)
        ],
        entries=entries,
        refused=[dict(name=name, entry=base(name, **fields)) for name, fields in REFUSED],
        logs=list(logs()),
    )
    text = json.dumps(vectors, ensure_ascii=True, indent=1) + "\n"
    (HERE / "format1.json").write_text(text, encoding="ascii")
    page = HERE.parent.parent / "docs" / "format.md"
    before, mark, _ = page.read_text(encoding="utf-8").partition("## 8. A worked example\n")
    page.write_text(before + mark + example(entries[0]), encoding="utf-8")


def example(vector):
    """The page's last section: one entry, taken apart."""
    entry = vector["entry"]

    def rows(data, *parts):
        out = []
        for length, words in parts:
            out.append(f"    {data[:length].hex():<{66}} {words}".rstrip())
            data = data[length:]
        assert not data
        return "\n".join(out)

    who = rows(
        fmt.who_bytes(entry), (18, "audit_chain who v1"), (16, "who_salt"), (4, "session_role: 3 bytes"), (3, "app"),
        (4, "effective_role: 3 bytes"), (3, "app"), (4, "actor: null"), (4, "application_name: null"),
        (4, "client_addr: null"))
    payload = rows(
        fmt.payload_bytes(entry), (16, "salt"), (4, "row_key: 8 bytes"), (8, '{"id":1}'),
        (4, "old_row: 15 bytes"), (15, '{"balance":100}'), (4, "new_row: 21 bytes"),
        (21, '{"id":1,"balance":90}'), (4, "detail: null"), (4, "statement: null"))
    leaf = rows(
        bytes.fromhex(vector["leaf"]), (1, "version 1"), (4, "chain 0"), (8, "seq 2"), (32, "prev_hash"),
        (8, f"at {entry['at']}: 2023-11-14 22:13:20.000001 UTC"), (8, f"xid {entry['xid']}"), (8, "UPDATE"),
        (8, "public"), (10, "accounts"), (32, "who_digest"), (32, "payload_digest"))
    first = fmt.genesis(LOG, 0).hex()
    return f"""
The vector `{vector['name']}` of `tests/vectors/format1.json`; `tests/vectors/check.py` checks this page too.

The who-part:

{who}

    who_digest = {vector['who_digest']}

The payload:

{payload}

    payload_digest = {vector['payload_digest']}

The leaf:

{leaf}

    hash = {entry['hash']}

And the genesis of chain 0 of the log `{LOG}`:

    genesis = {first}
"""


if __name__ == "__main__":
    main()

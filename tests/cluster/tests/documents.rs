//! The commands of the documents, as a reader copies them. A block that nobody can run fails the test.

use cluster_tests::document::{Block, Directive, Kind, Reader, blocks};
use cluster_tests::eventually;
use std::fs;

const OPERATIONS: &str = include_str!("../../../docs/operations.md");
const AUDITOR: &str = include_str!("../../../docs/auditor.md");
const CHECKPOINTS: &str = include_str!("../../../docs/checkpoints.md");

#[test]
fn operations() {
    let mut reader = Reader::new();
    let collector = reader.collector().directory().display().to_string();
    reader.replace("collector.example.com", &collector);
    let publisher = reader.server.conn_string("app").replace('\'', "");
    reader.replace("host=db.example.com dbname=app user=replicator", &publisher);
    let blocks = blocks("docs/operations.md", OPERATIONS);
    assert!(blocks.len() >= 5, "{blocks:?}");
    for block in &blocks {
        reader.run(block);
    }
    reader.database().assert_intact();
    // What the collector is for.
    let entries = "SELECT count(*), max(hash::text) FROM audit.audit_log";
    let written = reader.database().sql(entries);
    eventually("the log to arrive", || reader.collector().psql("app", entries).unwrap() == written);
    let key = fs::read_to_string(reader.server.directory().join("root/etc/audit_chain/log.key")).unwrap();
    assert!(key.starts_with("PRIVATE+KEY+example.com/log+"));
}

/// The guide of the auditor, who has been given a key, a checkpoint, and a login.
#[test]
fn auditor() {
    let mut reader = Reader::new();
    let work = reader.work();
    reader.shell("preparation", "audit-chain keygen --name example.com/log --out server.key > log.pub");
    let key = work.join("server.key").display().to_string();
    reader.server.set_config("audit_chain.signing_key_file", &key).unwrap();
    reader.server.restart().unwrap();
    reader.shell("preparation", "psql -XAtqc 'SELECT audit_checkpoint()' > kept.checkpoint");
    reader.database().sql("UPDATE public.accounts SET balance = 0 WHERE id < 10");
    let connection = reader.server.conn_string("app").replace("user=postgres", "user=auditor");
    reader.replace(
        "host=db.example.com dbname=app user=auditor sslmode=verify-full sslrootcert=ca.crt",
        &connection,
    );
    let service = connection.replace('\'', "").replace(' ', "\n");
    fs::write(work.join(".pg_service.conf"), format!("[audit]\n{service}\n")).unwrap();
    let blocks = blocks("docs/auditor.md", AUDITOR);
    assert!(blocks.len() >= 6, "{blocks:?}");
    for block in &blocks {
        reader.run(block);
    }
    assert!(work.join("entry.json").exists());
}

/// Its commands, and what it says of an export and a checkpoint.
#[test]
fn checkpoints() {
    let mut reader = Reader::new();
    reader.shell("preparation", "audit-chain keygen --name example.com/log --out server.key > log.pub");
    let key = reader.work().join("server.key").display().to_string();
    reader.server.set_config("audit_chain.signing_key_file", &key).unwrap();
    reader.server.restart().unwrap();
    let connection = reader.server.conn_string("app").replace('\'', "");
    reader.replace("host=db.example.com dbname=app user=auditor", &connection);
    let export = "audit-chain export \"$(echo host=$PGHOST port=$PGPORT user=$PGUSER dbname=app)\" ./export --unsealed";
    reader.shell("preparation", "psql -XAtqc 'SELECT audit_checkpoint()' > kept.checkpoint");
    reader.database().sql("UPDATE public.accounts SET balance = 0 WHERE id < 10");
    reader.shell("preparation", export);
    reader.database().sql("SELECT audit_rotate(); SELECT audit_seal(); SELECT audit_checkpoint()");
    let (mut texts, mut commands) = (0, 0);
    for block in &blocks("docs/checkpoints.md", CHECKPOINTS) {
        if block.text.starts_with("— example.com/log ") {
            continue; // its signature, after an empty line
        }
        if block.text.starts_with("audit_chain/") {
            is_a_checkpoint(block, &reader);
            texts += 1;
        } else if block.text.starts_with("audit_chain erasures v1") {
            let erase =
                "SELECT audit_erase('public.accounts', '{\"id\": 5}', 'on request', dry_run => false)";
            reader.database().sql(erase);
            reader.shell("preparation", "psql -XAtqc 'SELECT audit_erasure_register()' > register");
            let register = fs::read_to_string(reader.work().join("register")).unwrap();
            assert!(register.starts_with("audit_chain erasures v1\naudit_chain/"), "{register}");
            texts += 1;
        } else if block.text.starts_with("log.json ") {
            lists_the_export(block, &reader);
            texts += 1;
        } else {
            reader.run(block);
            commands += 1;
        }
    }
    assert_eq!((texts, commands), (3, 5));
}

/// The example has the form of a real checkpoint.
fn is_a_checkpoint(block: &Block, reader: &Reader) {
    let real = fs::read_to_string(reader.work().join("kept.checkpoint")).unwrap();
    let form = |text: &str| text.lines().take(3).map(|line| line.len()).collect::<Vec<_>>();
    let (example, real) = (form(&block.text), form(&real));
    assert_eq!((example[0], example[2]), (real[0], real[2]), "{}", block.place);
}

/// Every file that the list names is there, and every file that is there is in the list.
fn lists_the_export(block: &Block, reader: &Reader) {
    let names: Vec<&str> = block
        .text
        .lines()
        .filter(|line| !line.starts_with(' '))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    let mut listed: Vec<&str> = names.iter().map(|name| name.split('/').next().unwrap()).collect();
    listed.dedup();
    // The log of this export has nothing that needs it.
    listed.retain(|name| *name != "records.jsonl.zst");
    let folder = fs::read_dir(reader.work().join("export")).unwrap();
    let mut there: Vec<String> =
        folder.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    listed.sort_unstable();
    listed.dedup();
    there.sort_unstable();
    assert_eq!(listed, there, "{}", block.place);
}

#[test]
fn blocks_are_found_and_told_apart() {
    let document = "Text.\n\n    SELECT 1;\n\n    # postgresql.conf\n    a.b = 'x'   # why\n    c = 5min\n\n* item\n  more\n\n      \
                    sudo install x\n\ntext\n    no block\n\n```sql\nBEGIN;\n\nCOMMIT;\n```\n\n     a | b\n    ---+---\n     1 | 2\n\n    \
                    */5 * * * * psql -c x\n\n    pg_dump -f x \\\n        y\n\n    A poem\n";
    let found = blocks("d", document);
    let kinds: Vec<_> = found.iter().map(Block::kind).collect();
    assert_eq!(
        kinds,
        [
            Some(Kind::Sql),
            Some(Kind::Conf),
            Some(Kind::Shell),
            Some(Kind::Sql),
            Some(Kind::Output),
            Some(Kind::Cron),
            Some(Kind::Shell),
            None
        ],
        "{found:?}"
    );
    assert_eq!(found[0].place, "d:3");
    assert!(found.iter().all(|block| block.directives.is_empty()));
    assert_eq!(found[3].text, "BEGIN;\n\nCOMMIT;\n");
    assert_eq!(found[6].text, "pg_dump -f x \\\n    y\n");
}

#[test]
fn directives_belong_to_the_next_block() {
    let found = blocks(
        "d",
        "<!-- test: in other -->\n<!-- test: prepare CREATE ROLE r -->\n\n    SELECT 1;\n\n    SELECT 2;\n",
    );
    let expected = [Directive::In("other".into()), Directive::Prepare("CREATE ROLE r".into())];
    assert_eq!(found[0].directives, expected);
    assert_eq!(found[1].directives, []);
}

#[test]
#[should_panic(expected = "d:1: no directive")]
fn an_unknown_directive_fails() {
    blocks("d", "<!-- test: somewhere -->\n\n    SELECT 1;\n");
}

fn block(place: &str, text: &str) -> Block {
    Block { place: place.into(), text: text.into(), directives: Vec::new() }
}

#[test]
#[should_panic(expected = "it is not known how to run this")]
fn what_is_no_command_fails() {
    Reader::new().run(&block("d:1", "A poem\n"));
}

#[test]
#[should_panic(expected = "this cannot be run as it is written")]
fn a_command_with_an_ellipsis_fails() {
    Reader::new().run(&block("d:1", "SELECT audit_verify(checkpoint => '…');\n"));
}

#[test]
#[should_panic(expected = "is not a setting")]
fn a_setting_that_does_not_exist_fails() {
    Reader::new().run(&block("d:1", "audit_chain.no_such_setting = 'on'\n"));
}

#[test]
#[should_panic(expected = "is not printed, or not there")]
fn a_table_that_is_not_printed_fails() {
    let mut reader = Reader::new();
    reader.run(&block("d:1", "SELECT 1 AS a;\n"));
    reader.run(&block("d:2", " a\n---\n 1\n"));
    reader.run(&block("d:3", " a\n---\n 2\n"));
}

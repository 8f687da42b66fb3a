//! `audit_undo()` and `audit_restore()`.

use crate::audit::record::record;
use crate::error::{Error, OrRaise, notice};
use crate::extension::Extension;
use crate::history::ask::{self, As, Asked};
use crate::history::reader::{self, Entry, Key, Operation, Reader, Rows};
use crate::history::report::Report;
use crate::history::table_at::{Question, RowAt};
use crate::history::typed::Typed;
use crate::history::undo::effect::{self, Effect, row_then};
use crate::history::undo::entries::Transaction;
use crate::history::undo::look::Look;
use crate::history::undo::plan::{Kind, Plan, Statement, Whole, condition, set};
use crate::history::undo::run::Run;
use crate::history::undo::target::Target;
use crate::history::when::When;
use crate::history::{require_reader, transaction};
use crate::log::{self, Place};
use crate::pg::equality::KeyEquality;
use crate::pg::fmgr::Call;
use crate::pg::form::RowSink;
use crate::pg::query::execute_counted;
use crate::pg::session::effective_role;
use crate::pg::text::{Text, json_datum};
use crate::pg::xact::{self, ActiveSnapshot};
use audit_chain_core::history::Position;
use audit_chain_core::history::content::Content;
use audit_chain_core::history::image;
use pgrx::IntoDatum;
use pgrx::pg_sys::{Datum, Oid};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};

/// `audit_undo(xid xid8 | bigint | text, dry_run boolean, force boolean)`, which returns rows
pub fn undo(call: Call) -> Datum {
    take_back(&call).or_raise();
    call.null()
}

fn take_back(call: &Call) -> Result<(), Error> {
    let function = "audit_undo";
    let flag = |index, argument| call.arg::<bool>(index).ok_or(Error::NullArgument { function, argument });
    let (dry_run, force) = (flag(1, "dry_run")?, flag(2, "force")?);
    let xid = transaction::xid(call, function)?;
    if !dry_run {
        xact::refuse_if_read_only(c"audit_undo()");
    }
    let extension = Extension::installed()?;
    require_reader(&extension, function)?;
    log::flush();
    xact::make_visible();
    let (transaction, effect) = {
        let _latest = ActiveSnapshot::push_latest();
        let transaction = Transaction::read(&extension, xid)?;
        let effect = effect::of(&extension, &transaction)?;
        (transaction, effect)
    };
    check_others(&transaction, &effect, force)?;
    let plan = Plan::of(&extension, xid, &effect, !dry_run)?;
    let mut done = plan.statements.clone();
    if !dry_run {
        if !force {
            refuse_conflicts(xid, &plan)?;
        }
        if plan.statements.is_empty() {
            notice("nothing is left that could be taken back");
        } else {
            let rows = plan.statements.iter().map(|statement| statement.item).collect::<BTreeSet<_>>().len();
            let begun = begin(&json!({ "xid": xid, "force": force, "rows": rows }))?;
            let run = Run { extension: &extension, effect: &effect, plan: &plan, force, begun };
            done = run.run()?;
        }
    }
    show(call, &plan, &done, force);
    Ok(())
}

/// Records what is about to be taken back.
fn begin(detail: &serde_json::Value) -> Result<Place, Error> {
    let place = record("UNDO", None, detail, effective_role())?;
    log::flush();
    Ok(place)
}

/// Says which entries are not about rows; refuses a transaction that has changed the definition of a table
/// whose rows it has changed.
fn check_others(transaction: &Transaction, effect: &Effect, force: bool) -> Result<(), Error> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for other in &transaction.others {
        // The entry by which a transaction says that it takes another one back has done nothing.
        if other.operation == "UNDO" {
            continue;
        }
        *counts.entry(&other.operation).or_default() += 1;
        let is_concerned = other.operation == "DDL"
            && other.table.as_ref().is_some_and(|name| {
                effect.groups.iter().any(|group| group.target.lineage(name, other.position).is_some())
                    || transaction.changes.iter().any(|change| change.table == *name)
            });
        if is_concerned && !force {
            let name =
                other.table.as_ref().map_or(String::new(), |(schema, name)| format!("{schema}.{name}"));
            return Err(Error::UndoDefinition { xid: transaction.xid, table: name });
        }
    }
    if effect.baseline > 0 {
        counts.insert("BASELINE", effect.baseline);
    }
    if !counts.is_empty() {
        let list: Vec<String> =
            counts.iter().map(|(operation, count)| format!("{operation} ({count})")).collect();
        notice(&format!("entries that are no changes of rows are not taken back: {}", list.join(", ")));
    }
    Ok(())
}

fn refuse_conflicts(xid: u64, plan: &Plan) -> Result<(), Error> {
    let mut conflicting = plan.items.iter().filter(|item| !item.conflicts.is_empty());
    let Some(first) = conflicting.next() else { return Ok(()) };
    let row = first.row_key.as_ref().map_or_else(|| "a row".into(), |key| format!("row {key}"));
    Err(Error::UndoConflict {
        xid,
        first: format!("{row} of table \"{}\": {}", first.table, first.conflicts.join("; ")),
        others: conflicting.count(),
    })
}

/// Returns the statements in their order, then the rows that have none.
fn show(call: &Call, plan: &Plan, statements: &[Statement], force: bool) {
    let mut sink = RowSink::begin(call);
    let mut step = 0;
    let mut put = |item: usize, statement: Option<&str>| {
        step += 1;
        let item = &plan.items[item];
        sink.put(|| {
            let text = |text: &str| Text(text.to_owned()).into_datum();
            let conflicts = Some(item.conflicts.join("; ")).filter(|conflicts| !conflicts.is_empty());
            vec![
                Some(Datum::from(step)),
                text(&item.table),
                item.row_key.as_deref().map(json_datum),
                statement.and_then(text),
                conflicts.as_deref().and_then(text),
            ]
        });
    };
    let mut shown = BTreeSet::new();
    for statement in statements {
        if force || plan.items[statement.item].conflicts.is_empty() {
            shown.insert(statement.item);
            put(statement.item, Some(&statement.text));
        }
    }
    for item in 0..plan.items.len() {
        if !shown.contains(&item) && !plan.items[item].conflicts.is_empty() {
            put(item, None);
        }
    }
}

/// `audit_restore(relation regclass, key jsonb, at timestamptz, dry_run boolean)`
pub fn restore_to_time(call: Call) -> Datum {
    restored(&call, relation(&call), As::Time)
}

/// `audit_restore(relation regclass, key jsonb, checkpoint bigint, dry_run boolean)`
pub fn restore_to_checkpoint(call: Call) -> Datum {
    restored(&call, relation(&call), As::Size)
}

/// `audit_restore(relation regclass, key jsonb, at text, dry_run boolean)`
pub fn restore_to_text(call: Call) -> Datum {
    restored(&call, relation(&call), As::Text)
}

/// `audit_restore(relation text, key jsonb, at timestamptz, dry_run boolean)`
pub fn restore_named_to_time(call: Call) -> Datum {
    restored(&call, named(&call), As::Time)
}

/// `audit_restore(relation text, key jsonb, checkpoint bigint, dry_run boolean)`
pub fn restore_named_to_checkpoint(call: Call) -> Datum {
    restored(&call, named(&call), As::Size)
}

/// `audit_restore(relation text, key jsonb, at text, dry_run boolean)`
pub fn restore_named_to_text(call: Call) -> Datum {
    restored(&call, named(&call), As::Text)
}

const RESTORE: &str = "audit_restore";

fn relation(call: &Call) -> Result<Asked, Error> {
    let relation: Oid = call.arg(0).ok_or(Error::NullArgument { function: RESTORE, argument: "relation" })?;
    Asked::of_relation(relation)
}

fn named(call: &Call) -> Result<Asked, Error> {
    let name = call.text(0).ok_or(Error::NullArgument { function: RESTORE, argument: "relation" })?;
    Asked::of_name(&name)
}

fn restored(call: &Call, asked: Result<Asked, Error>, of: As) -> Datum {
    let statement = asked.and_then(|asked| restore(call, &asked, of)).or_raise();
    statement.map_or_else(|| call.null(), |statement| call.returns(Text(statement)))
}

/// Brings one row to its state at a moment; returns the statement that does so.
fn restore(call: &Call, asked: &Asked, of: As) -> Result<Option<String>, Error> {
    let null = |argument| Error::NullArgument { function: RESTORE, argument };
    let given = call.jsonb(1).ok_or_else(|| null("key"))?;
    let dry_run: bool = call.arg(3).ok_or_else(|| null("dry_run"))?;
    if !dry_run {
        xact::refuse_if_read_only(c"audit_restore()");
    }
    let table = asked.family.root.shown();
    let gone = || Error::TableGone { table: table.clone() };
    let relation = asked.relation.ok_or_else(gone)?;
    let target = Target::of(&asked.extension, Target::relation_for(relation))?;
    let row = key_of(asked, &target, &given)?;
    let when = ask::moment(call, 2, of, &asked.extension, (RESTORE, "at"), true)?;
    when.tell();
    // The row as it is now, which is locked first.
    let look = Look::new(&target, !dry_run);
    let now = look.by_key(&row);
    if !target.is_named() {
        return Err(Error::UndoRenamed { table });
    }
    xact::make_visible();
    let latest = ActiveSnapshot::push_latest();
    // Equal keys may have different texts, as 1.0 and 1.00 have: the row tells which one is recorded last.
    let given_key = target.key_of(&row).expect("of all columns of the key");
    let key = now.as_ref().and_then(|seen| target.key_of(&seen.row)).unwrap_or(given_key);
    let (asked_for, limit) = (when.shown(), when.limit());
    let moments = [when];
    let mut report = Report::new(&table);
    let mut then: Option<(Content, usize, Position)> = None;
    let members: Vec<_> = target.family.members().collect();
    let mut find = |only: Option<&Key>, is_it: &mut dyn FnMut(&Key) -> bool, report: &mut Report| {
        let question =
            Question { extension: &asked.extension, family: &target.family, moments: &moments, key: only };
        question.visit(&mut Typed::of_relation(target.relation), report, &mut |_, _, found| {
            let RowAt { lineage, images, .. } = found;
            for (image, found) in images.into_iter().flatten() {
                let content = row_then(&target, lineage, &image.row, image.position, found, limit);
                // Rows of a table whose key has changed are all visited.
                if target.key_of(&content).as_ref().is_some_and(&mut *is_it) {
                    let member =
                        members.iter().position(|member| std::ptr::eq(*member, lineage)).unwrap_or(0);
                    then = Some((content, member, image.position));
                }
            }
            Ok(())
        })?;
        Ok(then.is_some())
    };
    if !find(Some(&key), &mut |other| *other == key, &mut report)?
        && let Some(mut equality) = KeyEquality::of(target.relation)
    {
        find(None, &mut |other| equality.are_equal(&key, other), &mut Report::new(&table))?;
    }
    let reader = Reader::open(&asked.extension, i64::MIN, i64::MAX)?;
    let (texts, losses) = match (&then, &now) {
        (None, None) => (Vec::new(), Vec::new()),
        (None, Some(seen)) => {
            if !is_known_absent(&reader, &target, &key, &moments[0])? {
                return Err(Error::RestoreUnknown { table, key: given, at: asked_for });
            }
            let condition = condition(&target, seen).ok_or_else(gone)?;
            (vec![(Kind::Delete, target.delete(&condition), seen.row.clone())], Vec::new())
        }
        (Some((content, member, position)), now) => {
            let whole = Whole {
                target: &target,
                lineage: Some(members[*member]),
                reader: &reader,
                position: *position,
            };
            set(&whole, content, &BTreeSet::new(), now.as_ref())
        }
    };
    drop(latest);
    report.tell();
    losses.iter().for_each(|loss| notice(loss));
    let Some((_, text, _)) = texts.into_iter().next() else {
        notice(&format!("nothing to do: row {given} of table \"{table}\" is as it was ({asked_for})"));
        return Ok(None);
    };
    if !dry_run {
        let shown: serde_json::Value = serde_json::from_str(&given).unwrap_or_default();
        begin(&json!({ "restored": { "table": target.shown, "key": shown, "at": asked_for } }))?;
        let changed = execute_counted(&text);
        if changed != 1 {
            return Err(Error::UndoWithoutEffect { table, row: format!("row {given}"), changed });
        }
    }
    Ok(Some(text))
}

/// Whether the log tells that no row with this key was there at a moment: it has all rows of that time, or
/// the nearest entries about the row say so.
fn is_known_absent(reader: &Reader, target: &Target, key: &Key, when: &When) -> Result<bool, Error> {
    let mut erased = false;
    let mut entries: Vec<Entry> = Vec::new();
    for lineage in target.family.members() {
        reader.visit_unnamed(lineage, &mut |entry| erased |= entry.is_erased);
        reader
            .visit_unindexed(lineage, &Rows::Keys(&BTreeSet::new()), &mut |entry| erased |= entry.is_erased);
        if lineage.key_has_changed {
            continue;
        }
        let found = reader::by_key(reader, lineage, &BTreeSet::from([key.clone()]));
        entries.extend(found.into_values().flatten());
    }
    entries.sort_by_key(|entry| entry.position);
    let counts = |entry: &&Entry| when.counts(&entry.position, entry.xid);
    // What went before the moment was not there then, and what came after it neither.
    let went = entries
        .iter()
        .rfind(counts)
        .is_some_and(|entry| entry.operation == Operation::Delete || entry.left.as_ref() == Some(key));
    let came = entries.iter().find(|entry| !counts(entry)).is_some_and(|entry| {
        entry.operation == Operation::Insert || entry.left.is_some() && entry.key.as_ref() == Some(key)
    });
    Ok(went || came || !erased && target.has_all_rows(&target.family.root, when.limit())?.is_none())
}

/// The columns of the key that the caller has given, with their values as entries have them.
fn key_of(asked: &Asked, target: &Target, given: &str) -> Result<Content, Error> {
    let table = asked.family.root.shown();
    if target.key.is_empty() {
        return Err(Error::RestoreNeedsKey { table });
    }
    let names: BTreeSet<String> =
        image::columns(given).unwrap_or_default().into_iter().map(|(name, _)| name.into_owned()).collect();
    if names != target.key.iter().cloned().collect() {
        let members: Vec<String> =
            target.key.iter().map(|column| format!("{}: ...", json!(column))).collect();
        let columns = format!("{{{}}}", members.join(", "));
        return Err(Error::NoSuchKey { table, key: given.to_owned(), columns });
    }
    let values = asked.key_values(given, &target.key)?;
    let value = |(name, text): (&String, String)| (name.clone(), json!(text).to_string());
    Ok(target.key.iter().zip(values).map(value).collect())
}

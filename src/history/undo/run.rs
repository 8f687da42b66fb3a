//! Runs the statements of a plan, as the caller, all or none.

use crate::error::{Error, and_others, notice};
use crate::extension::Extension;
use crate::history::reader::{Entry, Key, Operation};
use crate::history::undo::effect::{Effect, Group};
use crate::history::undo::look::differences;
use crate::history::undo::plan::{Plan, Statement};
use crate::history::undo::target::content;
use crate::log::segment::{segment_of, table_of};
use crate::log::{self, Place, columns};
use crate::pg::query::{execute, execute_counted};
use crate::pg::scan::for_each_in_range;
use crate::pg::xact::{self, ActiveSnapshot};
use audit_chain_core::history::content::Content;
use pgrx::PgSqlErrorCode;
use std::collections::{BTreeMap, HashMap};

/// What is run.
pub struct Run<'a> {
    pub extension: &'a Extension,
    pub effect: &'a Effect,
    pub plan: &'a Plan,
    /// Whether rows are taken back whatever else that changes.
    pub force: bool,
    /// The entry that says what is taken back: what follows it in the chain is what the statements did.
    pub begun: Place,
}

impl Run<'_> {
    /// Runs the statements in the first order that constraints allow; returns them in that order.
    pub fn run(&self) -> Result<Vec<Statement>, Error> {
        let orders = self.plan.orders();
        for (at, order) in orders.iter().enumerate() {
            // Checks that can be put off are put off where that is needed.
            for defer in [false, true] {
                if defer && self.plan.constraints.deferrable.is_empty() {
                    continue;
                }
                if at == 0 && !defer && orders.len() == 1 && self.plan.constraints.deferrable.is_empty() {
                    continue;
                }
                if let Some(result) =
                    xact::try_in_savepoint(|| self.attempt(order, defer), |code, _| is_about_order(code))
                {
                    return result.map(|()| order.clone());
                }
            }
        }
        // The first error, raised.
        self.attempt(&orders[0], false)?;
        Ok(orders[0].clone())
    }

    fn attempt(&self, order: &[Statement], defer: bool) -> Result<(), Error> {
        let constraints = self.plan.constraints.deferrable.join(", ");
        if defer {
            execute(&format!("SET CONSTRAINTS {constraints} DEFERRED"));
        }
        for statement in order {
            let changed = execute_counted(&statement.text);
            if changed != 1 {
                let item = &self.plan.items[statement.item];
                let row = item.row_key.as_ref().map_or_else(|| "a row".into(), |key| format!("row {key}"));
                let table = item.table.clone();
                if !self.force {
                    return Err(Error::UndoWithoutEffect { table, row, changed });
                }
                notice(&format!("the statement about {row} of table \"{table}\" changed {changed} rows"));
            }
        }
        if defer {
            execute(&format!("SET CONSTRAINTS {constraints} IMMEDIATE"));
        }
        self.check()
    }

    /// Compares what the statements did, by the log, with what they should do.
    fn check(&self) -> Result<(), Error> {
        log::flush();
        xact::make_visible();
        let _now = ActiveSnapshot::push_latest();
        let mut strays: Vec<String> = Vec::new();
        let mut last: HashMap<(usize, Key), Option<Content>> = HashMap::new();
        let mut unkeyed: BTreeMap<usize, usize> = BTreeMap::new();
        let planned: Vec<_> = self.effect.groups.iter().map(Group::keys).collect();
        for entry in self.done()? {
            let found = self.effect.groups.iter().enumerate().find_map(|(number, group)| {
                group.target.lineage(&entry.table, entry.position).map(|lineage| (number, group, lineage))
            });
            let stray = || {
                let row = entry.row_key.clone().unwrap_or_else(|| "without a key".into());
                format!(
                    "{} of row {row} of table \"{}.{}\"",
                    entry.operation.word(),
                    entry.table.0,
                    entry.table.1
                )
            };
            let Some((number, group, lineage)) = found else {
                strays.push(stray());
                continue;
            };
            let row = |image: Option<String>| image.map(|image| content(lineage, &image, entry.position));
            let (before, after) = (row(entry.before()), row(entry.new_row.clone()));
            if group.target.key.is_empty() {
                *unkeyed.entry(number).or_default() += 1;
                continue;
            }
            let keys: Vec<Key> =
                [&before, &after].iter().filter_map(|row| group.target.key_of(row.as_ref()?)).collect();
            if keys.is_empty() || keys.iter().any(|key| !planned[number].contains(key)) {
                strays.push(stray());
            }
            for key in keys {
                last.insert((number, key), None);
            }
            if let Some((after, key)) = after.and_then(|row| Some((row.clone(), group.target.key_of(&row)?)))
            {
                last.insert((number, key), Some(after));
            }
        }
        for (number, count) in unkeyed {
            let of_table = self.plan.statements.iter();
            let of_table = of_table.filter(|statement| self.plan.items[statement.item].group == Some(number));
            if count > of_table.count() {
                strays.push(format!("further rows of table \"{}\"", self.effect.groups[number].target.shown));
            }
        }
        if !strays.is_empty() {
            let others = strays.len() - 1;
            let first = strays.swap_remove(0);
            if !self.force {
                return Err(Error::UndoStrays { first, others });
            }
            notice(&format!(
                "triggers or foreign keys have made other changes too: {first}{}",
                and_others(others)
            ));
        }
        self.tell_differences(&last);
        Ok(())
    }

    /// Says which rows are not as they were before: triggers may have changed them.
    fn tell_differences(&self, last: &HashMap<(usize, Key), Option<Content>>) {
        let mut differing: BTreeMap<(usize, String), u64> = BTreeMap::new();
        for item in self.plan.items.iter().filter(|item| self.force || item.conflicts.is_empty()) {
            let (Some(number), Some(before)) = (item.group, &item.before) else { continue };
            let target = &self.effect.groups[number].target;
            let Some(key) = target.key_of(before) else { continue };
            if let Some(Some(now)) = last.get(&(number, key)) {
                for column in differences(target, before, now, &|name| item.retyped.contains(name)) {
                    *differing.entry((number, column)).or_default() += 1;
                }
            }
        }
        for ((number, column), count) in differing {
            notice(&format!(
                "column \"{column}\" of table \"{}\" is not as it was before in {count} of its rows: a trigger may have set it",
                self.effect.groups[number].target.shown
            ));
        }
    }

    /// The entries about rows that came since the one that says what is taken back.
    fn done(&self) -> Result<Vec<Entry>, Error> {
        let mut found = Vec::new();
        let Place { chain, seq, .. } = self.begun;
        if let Some(table) = table_of(self.extension, segment_of(chain))? {
            for_each_in_range(table, chain as i32, seq + 1..=i64::MAX, |row| {
                let entry = Entry::of(&columns::read(&row));
                found.extend(entry.filter(|entry| entry.operation != Operation::Baseline));
            });
        }
        Ok(found)
    }
}

/// Whether another order of the statements may avoid an error.
fn is_about_order(code: PgSqlErrorCode) -> bool {
    use PgSqlErrorCode::{
        ERRCODE_EXCLUSION_VIOLATION, ERRCODE_FOREIGN_KEY_VIOLATION, ERRCODE_RESTRICT_VIOLATION,
        ERRCODE_UNIQUE_VIOLATION,
    };
    [
        ERRCODE_EXCLUSION_VIOLATION,
        ERRCODE_FOREIGN_KEY_VIOLATION,
        ERRCODE_RESTRICT_VIOLATION,
        ERRCODE_UNIQUE_VIOLATION,
    ]
    .contains(&code)
}

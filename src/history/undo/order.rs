//! In which order statements are run: rows that others refer to are inserted first, and deleted last.

use crate::pg::query::query_statement;
use crate::pg::session::LocalSettings;
use audit_chain_core::history::content::Content;
use pgrx::pg_sys::Oid;
use std::collections::HashMap;

/// A foreign key between tables that are written to, by their numbers.
pub struct ForeignKey {
    pub from: usize,
    pub to: usize,
    pub from_columns: Vec<String>,
    pub to_columns: Vec<String>,
}

/// What constraints say of an order.
pub struct Constraints {
    pub foreign_keys: Vec<ForeignKey>,
    /// The constraints whose check can be put off, and is not by itself: names for SET CONSTRAINTS.
    pub deferrable: Vec<String>,
}

impl Constraints {
    /// Those of these tables.
    pub fn of(tables: &[Oid]) -> Self {
        let _path = LocalSettings::safe_search_path();
        let list = tables.iter().map(|oid| oid.to_u32().to_string()).collect::<Vec<_>>().join(", ");
        if tables.is_empty() {
            return Self { foreign_keys: Vec::new(), deferrable: Vec::new() };
        }
        let columns = |key: &str, relation: &str| {
            format!(
                "(SELECT json_agg(a.attname ORDER BY k.place)::text FROM unnest(c.{key}) WITH ORDINALITY k(number, place) \
                 JOIN pg_attribute a ON a.attrelid = c.{relation} AND a.attnum = k.number)"
            )
        };
        let foreign = format!(
            "SELECT c.conrelid::int8, c.confrelid::int8, {}, {} FROM pg_constraint c \
             WHERE c.contype = 'f' AND c.conrelid IN ({list}) AND c.confrelid IN ({list}) ORDER BY c.oid",
            columns("conkey", "conrelid"),
            columns("confkey", "confrelid")
        );
        let number = |oid: i64| tables.iter().position(|table| i64::from(table.to_u32()) == oid);
        let names = |json: Option<String>| {
            json.and_then(|json| serde_json::from_str::<Vec<String>>(&json).ok()).unwrap_or_default()
        };
        let foreign_keys = query_statement(&foreign, &[], |row| {
            Some(ForeignKey {
                from: number(row.value(1))?,
                to: number(row.value(2))?,
                from_columns: names(row.get_text(3)),
                to_columns: names(row.get_text(4)),
            })
        });
        let deferrable = format!(
            "SELECT DISTINCT format('%I.%I', n.nspname, c.conname) FROM pg_constraint c \
             JOIN pg_namespace n ON n.oid = c.connamespace \
             WHERE c.condeferrable AND NOT c.condeferred AND c.contype IN ('f', 'u', 'p', 'x') \
             AND (c.conrelid IN ({list}) OR c.confrelid IN ({list})) ORDER BY 1"
        );
        Self {
            foreign_keys: foreign_keys.into_iter().flatten().collect(),
            deferrable: query_statement(&deferrable, &[], |row| row.text(1)),
        }
    }

    /// The ranks of so many tables: a table that refers to another one has a greater rank, unless they
    /// refer to one another.
    pub fn ranks(&self, count: usize) -> Vec<usize> {
        let mut ranks = vec![None; count];
        let mut next = 0;
        for table in 0..count {
            self.rank(table, &mut vec![false; count], &mut ranks, &mut next);
        }
        ranks.into_iter().map(Option::unwrap_or_default).collect()
    }

    fn rank(&self, table: usize, under_way: &mut [bool], ranks: &mut [Option<usize>], next: &mut usize) {
        if ranks[table].is_some() || under_way[table] {
            return;
        }
        under_way[table] = true;
        for key in self.foreign_keys.iter().filter(|key| key.from == table && key.to != table) {
            self.rank(key.to, under_way, ranks, next);
        }
        ranks[table] = Some(*next);
        *next += 1;
    }

    /// The order of rows of one table in which a row comes after those of them that it refers to; otherwise
    /// as they are given.
    pub fn by_reference(&self, table: usize, rows: &[&Content]) -> Vec<usize> {
        let own: Vec<&ForeignKey> =
            self.foreign_keys.iter().filter(|key| key.from == table && key.to == table).collect();
        if own.is_empty() {
            return (0..rows.len()).collect();
        }
        let values = |row: &Content, columns: &[String]| -> Option<Vec<String>> {
            columns.iter().map(|name| row.get(name).filter(|value| *value != "null").cloned()).collect()
        };
        let mut above: Vec<Vec<usize>> = vec![Vec::new(); rows.len()];
        for key in own {
            let referred: HashMap<Vec<String>, usize> = rows
                .iter()
                .enumerate()
                .filter_map(|(at, row)| Some((values(row, &key.to_columns)?, at)))
                .collect();
            for (at, row) in rows.iter().enumerate() {
                let to = values(row, &key.from_columns).and_then(|values| referred.get(&values).copied());
                above[at].extend(to.filter(|to| *to != at));
            }
        }
        let (mut order, mut seen) = (Vec::with_capacity(rows.len()), vec![false; rows.len()]);
        // Without recursion: references may form a long chain.
        for start in 0..rows.len() {
            let mut path = vec![(start, 0)];
            while let Some((row, next)) = path.pop() {
                if next == 0 && std::mem::replace(&mut seen[row], true) {
                    continue;
                }
                match above[row].get(next) {
                    Some(&to) => {
                        path.push((row, next + 1));
                        if !seen[to] {
                            path.push((to, 0));
                        }
                    }
                    None => order.push(row),
                }
            }
        }
        order
    }
}

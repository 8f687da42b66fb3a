//! `audit_as_of()` and `audit_diff()`: a table's rows at a moment, and what changed between two.

use crate::error::{Error, OrRaise};
use crate::history::ask::{self, As, Asked};
use crate::history::report::Report;
use crate::history::table_at::{Question, RowAt};
use crate::history::typed::Typed;
use crate::history::when::When;
use crate::pg::fmgr::Call;
use crate::pg::form::RowSink;
use crate::pg::text::{Text, Texts};
use pgrx::IntoDatum;
use pgrx::pg_sys::{Datum, Oid};
use std::collections::HashMap;

/// `audit_as_of(row anyelement, at timestamptz, exact boolean) RETURNS SETOF anyelement`
pub fn as_of_time(call: Call) -> Datum {
    as_of(&call, As::Time).or_raise();
    call.null()
}

/// `audit_as_of(row anyelement, checkpoint bigint) RETURNS SETOF anyelement`
pub fn as_of_checkpoint(call: Call) -> Datum {
    as_of(&call, As::Size).or_raise();
    call.null()
}

/// `audit_as_of(row anyelement, at text, exact boolean) RETURNS SETOF anyelement`
pub fn as_of_text(call: Call) -> Datum {
    as_of(&call, As::Text).or_raise();
    call.null()
}

/// Whether the argument `exact` is true, which the functions of a checkpoint's size do not have.
fn is_exact(call: &Call, of: As, argument: usize, function: &'static str) -> Result<bool, Error> {
    if of == As::Size {
        return Ok(true);
    }
    call.arg(argument).ok_or(Error::NullArgument { function, argument: "exact" })
}

fn as_of(call: &Call, of: As) -> Result<(), Error> {
    let function = "audit_as_of";
    let asked = Asked::of_type(call, function)?;
    let exact = is_exact(call, of, 2, function)?;
    let when = ask::moment(call, 1, of, &asked.extension, (function, "at"), exact)?;
    when.tell();
    rows(call, &asked, when)
}

/// Returns the rows of a table at a moment.
pub fn rows(call: &Call, asked: &Asked, when: When) -> Result<(), Error> {
    put_rows(asked, when, Typed::of_relation(relation(asked)?), RowSink::begin(call))
}

fn relation(asked: &Asked) -> Result<Oid, Error> {
    asked.relation.ok_or_else(|| Error::NeverAudited { table: asked.family.root.shown() })
}

/// Returns the rows with the columns that the query describes.
pub fn rows_as_described(call: &Call, asked: &Asked, when: When) -> Result<(), Error> {
    let sink = RowSink::as_described(call);
    let typed = Typed::of_sink(&sink, relation(asked)?);
    put_rows(asked, when, typed, sink)
}

fn put_rows(asked: &Asked, when: When, mut typed: Typed, mut sink: RowSink) -> Result<(), Error> {
    let mut report = Report::new(&asked.family.root.shown());
    let moments = [when];
    let question =
        Question { extension: &asked.extension, family: &asked.family, moments: &moments, key: None };
    question.visit(&mut typed, &mut report, &mut |typed, report, row| {
        let RowAt { lineage, key, images } = row;
        for (image, found) in images.into_iter().flatten() {
            sink.put(|| match key {
                Some(_) => {
                    typed.values(lineage, &image.row, image.position, &moments[0], found.as_ref(), report)
                }
                None => typed.values_of_content(lineage, &image, &moments[0], report),
            });
        }
        Ok(())
    })?;
    report.tell();
    Ok(())
}

/// `audit_diff(row anyelement, since timestamptz, until timestamptz, exact boolean)`
pub fn diff_times(call: Call) -> Datum {
    diff(&call, As::Time).or_raise();
    call.null()
}

/// `audit_diff(row anyelement, since bigint, until bigint)`
pub fn diff_checkpoints(call: Call) -> Datum {
    diff(&call, As::Size).or_raise();
    call.null()
}

/// `audit_diff(row anyelement, since text, until text, exact boolean)`
pub fn diff_texts(call: Call) -> Datum {
    diff(&call, As::Text).or_raise();
    call.null()
}

fn diff(call: &Call, of: As) -> Result<(), Error> {
    let function = "audit_diff";
    let asked = Asked::of_type(call, function)?;
    let exact = is_exact(call, of, 3, function)?;
    let moment = |argument, name| ask::moment(call, argument, of, &asked.extension, (function, name), exact);
    let moments = [moment(1, "since")?, moment(2, "until")?];
    moments.iter().for_each(When::tell);
    let relation = asked.relation.ok_or(Error::NotARow { function })?;
    let mut typed = Typed::of_relation(relation);
    let mut report = Report::new(&asked.family.root.shown());
    let mut sink = RowSink::begin(call);
    // Rows without a key, by their content: how many there were before, less those after.
    let mut contents: HashMap<Vec<Option<Vec<u8>>>, i64> = HashMap::new();
    let question =
        Question { extension: &asked.extension, family: &asked.family, moments: &moments, key: None };
    // Of rows that are known by their content each is visited for one moment: first all of the first one.
    let mut unkeyed = Vec::new();
    question.visit(&mut typed, &mut report, &mut |typed, report, row| {
        let RowAt { lineage, key, images } = row;
        let mut images = images.into_iter();
        let (before, after) = (images.next().flatten(), images.next().flatten());
        if key.is_none() {
            for (at, image) in [before, after].into_iter().enumerate() {
                if let Some((image, _)) = image {
                    let texts = typed.texts(lineage, (&image, None, &moments[at]));
                    *contents.entry(texts.clone()).or_default() += if at == 0 { 1 } else { -1 };
                    unkeyed.push((lineage.clone(), at, image, texts));
                }
            }
            return Ok(());
        }
        let same = match (&before, &after) {
            (Some((before, _)), Some((after, _))) => {
                let [since, until] = &moments;
                before.position == after.position
                    && !lineage.has_altered(&|turn| since.counts_turn(turn), &|turn| until.counts_turn(turn))
            }
            _ => false,
        };
        if same {
            return Ok(());
        }
        let changed = match (&before, &after) {
            (Some((before, found_before)), Some((after, found_after))) => {
                let columns = typed.changed(
                    lineage,
                    (before, found_before.as_ref(), &moments[0]),
                    (after, found_after.as_ref(), &moments[1]),
                );
                if columns.is_empty() {
                    return Ok(());
                }
                Some(columns)
            }
            _ => None,
        };
        let word = match (&before, &after) {
            (None, _) => "added",
            (_, None) => "removed",
            _ => "changed",
        };
        sink.put(|| {
            let mut row = |at: usize, image: &Option<_>| {
                image.as_ref().map(|(image, found): &(crate::history::state::Image, Option<_>)| {
                    let values = typed.values(
                        lineage,
                        &image.row,
                        image.position,
                        &moments[at],
                        found.as_ref(),
                        report,
                    );
                    typed.row(&values)
                })
            };
            let (old, new) = (row(0, &before), row(1, &after));
            vec![Text(word.into()).into_datum(), changed.map(Texts).and_then(IntoDatum::into_datum), old, new]
        });
        Ok(())
    })?;
    for (lineage, at, image, texts) in unkeyed {
        let Some(surplus) = contents.get_mut(&texts) else { continue };
        let is_shown = if at == 0 { *surplus > 0 } else { *surplus < 0 };
        if !is_shown {
            continue;
        }
        *surplus += if at == 0 { -1 } else { 1 };
        sink.put(|| {
            let values = typed.values_of_content(&lineage, &image, &moments[at], &mut report);
            let row = Some(typed.row(&values));
            let word = Text(if at == 0 { "removed" } else { "added" }.into()).into_datum();
            if at == 0 { vec![word, None, row, None] } else { vec![word, None, None, row] }
        });
    }
    report.tell();
    Ok(())
}

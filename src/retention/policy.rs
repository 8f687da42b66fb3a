//! The policy: how long entries are kept at least, and what else must be given before they are pruned.
//!
//! **Invariants**
//! * What is kept is a number of seconds: the longest time that the policy's interval can last, in UTC. So
//!   two policies can be compared, and one that keeps more seconds keeps every entry at least as long,
//!   whatever the date is.
//! * A locked policy is followed by stricter ones only: for superusers too.

use crate::audit::enable::{check_reason, require_extension_owner};
use crate::audit::record::record;
use crate::error::{Error, OrRaise, notice};
use crate::extension::{Extension, OwnTable};
use crate::log::segment::last_chain;
use crate::log::stored::StoredRow;
use crate::log::{self, Place};
use crate::pg::encoding::to_utf8;
use crate::pg::fmgr::Call;
use crate::pg::interval::Interval;
use crate::pg::session::{self, LocalSettings};
use crate::pg::table::{self, StoredTuple, Tuple, scan_all_as_written};
use crate::pg::tuple::{ColumnValue, RowBuffer};
use crate::pg::xact;
use crate::retention;
use pgrx::IntoDatum;
use pgrx::pg_sys::{Datum, TimestampTz};
use serde_json::{Value, json};

const NAME: &str = "audit_retention";

/// What is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    pub keep: Interval,
    /// The longest time that `keep` can last, in seconds.
    pub keep_seconds: i64,
    /// Whether it can only become stricter.
    pub locked: bool,
    /// Whether entries are pruned only with the digest of their export, or declared disposable.
    pub needs_export: bool,
    /// Whether entries are pruned only once a checkpoint that covers them was published.
    pub needs_published: bool,
}

/// A policy, and where it was recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    pub policy: Policy,
    pub version: i64,
    /// The RETENTION entry.
    pub chain: i32,
    pub seq: i64,
    pub at: TimestampTz,
}

impl Policy {
    /// Its rules, as entries have them.
    pub fn to_json(&self) -> Value {
        json!({
            "keep": self.keep.text(),
            "keep_seconds": self.keep_seconds,
            "locked": self.locked,
            "needs_export": self.needs_export,
            "needs_published": self.needs_published,
        })
    }

    /// What the policy that follows this one would let go earlier or more easily, if this one is locked.
    fn weakened_by(&self, next: &Self) -> Option<&'static str> {
        let weaker = [
            (next.keep_seconds < self.keep_seconds, "keep entries for a shorter time"),
            (self.locked && !next.locked, "be unlocked"),
            (self.needs_export && !next.needs_export, "prune entries without their export"),
            (self.needs_published && !next.needs_published, "prune entries without a published checkpoint"),
        ];
        weaker.into_iter().find(|(is_weaker, _)| self.locked && *is_weaker).map(|(_, what)| what)
    }
}

/// The policy in force; `None` where none was ever set. Sees what is committed and what this transaction has
/// done.
pub fn current(extension: &Extension) -> Result<Option<Recorded>, Error> {
    let mut all = scan_all_as_written(extension.table(OwnTable::RetentionPolicy)?, read);
    all.sort_by_key(|recorded| recorded.version);
    let damaged = |reason: String| Error::DamagedRetention { reason };
    for (at, recorded) in all.iter().enumerate() {
        if recorded.version != at as i64 + 1 {
            return Err(damaged(format!("version {} of the policy is missing", at + 1)));
        }
        let before = at.checked_sub(1).map(|before| &all[before].policy);
        if let Some(what) = before.and_then(|before| before.weakened_by(&recorded.policy)) {
            return Err(damaged(format!("version {} follows a locked policy, and cannot {what}", at + 1)));
        }
    }
    Ok(all.pop())
}

fn read(row: StoredTuple<'_>) -> Recorded {
    // A column of a row that was put there by force may be anything but null.
    let policy = Policy {
        keep: row.get(2).expect("keep is not null"),
        keep_seconds: row.integer(3),
        locked: row.get(4).unwrap_or(true),
        needs_export: row.get(5).unwrap_or(true),
        needs_published: row.get(6).unwrap_or(true),
    };
    Recorded {
        policy,
        version: row.integer(1),
        chain: row.integer(7) as i32,
        seq: row.integer(8),
        at: row.integer(9),
    }
}

/// Refuses a policy of which the RETENTION entry says something else.
pub fn check_recorded(extension: &Extension, recorded: &Recorded) -> Result<(), Error> {
    let says = detail(extension, recorded)?;
    let fits = says.as_ref().is_some_and(|says| {
        recorded
            .policy
            .to_json()
            .as_object()
            .is_some_and(|rules| rules.iter().all(|(name, rule)| says[name] == *rule))
    });
    if fits {
        return Ok(());
    }
    let reason = match says {
        Some(_) => "its RETENTION entry says something else",
        None => "its RETENTION entry is missing, or was erased",
    };
    Err(Error::DamagedRetention { reason: format!("version {}: {reason}", recorded.version) })
}

/// What the RETENTION entry of a policy says, as the active snapshot sees it.
fn detail(extension: &Extension, recorded: &Recorded) -> Result<Option<Value>, Error> {
    let read = |entry: &StoredRow<'_>| {
        let detail = entry.detail.filter(|_| entry.operation == Some(b"RETENTION"))?;
        serde_json::from_slice(&to_utf8(detail)).ok()
    };
    Ok(log::table::entry(extension, recorded.chain, recorded.seq, read)?.flatten())
}

/// Says the policy again, if the entry that says it is about to be pruned with a segment.
pub fn carry_forward(extension: &Extension, segment: u32) -> Result<(), Error> {
    let Some(recorded) = current(extension)? else { return Ok(()) };
    if recorded.chain > last_chain(segment) as i32 {
        return Ok(());
    }
    let mut detail = recorded.policy.to_json();
    let reason = self::detail(extension, &recorded)?.map_or(Value::Null, |detail| detail["reason"].clone());
    detail["reason"] = reason;
    detail["carried"] = true.into();
    detail["since"] = xact::json_time(recorded.at).into();
    set(extension, recorded.policy.clone(), detail, Some(recorded)).map(drop)
}

/// `audit_retention(INOUT keep, INOUT locked, INOUT needs_export, INOUT needs_published, reason, OUT since)`
pub fn retention(call: Call) -> Datum {
    let recorded = show_or_set(&call).or_raise();
    let policy = recorded.as_ref().map(|recorded| &recorded.policy);
    call.returns_row(vec![
        policy.and_then(|policy| policy.keep.into_datum()),
        policy.and_then(|policy| policy.locked.into_datum()),
        policy.and_then(|policy| policy.needs_export.into_datum()),
        policy.and_then(|policy| policy.needs_published.into_datum()),
        recorded.map(|recorded| Datum::from(recorded.at)),
    ])
}

fn show_or_set(call: &Call) -> Result<Option<Recorded>, Error> {
    let keep = call.arg::<Interval>(0);
    let [locked, needs_export, needs_published] = [1, 2, 3].map(|index| call.arg::<bool>(index));
    let reason = call.text(4);
    let extension = Extension::installed()?;
    let _path = LocalSettings::safe_search_path();
    let is_question =
        keep.is_none() && locked.is_none() && needs_export.is_none() && needs_published.is_none();
    if is_question && reason.is_none() {
        return current(&extension);
    }
    xact::refuse_if_read_only(c"audit_retention()");
    require_extension_owner(&extension, NAME)?;
    let null = |argument| Error::NullArgument { function: NAME, argument };
    let reason = reason.ok_or_else(|| null("reason"))?;
    check_reason(&reason, NAME)?;
    retention::lock(&extension)?;
    let before = current(&extension)?;
    let known = before.as_ref().map(|before| &before.policy);
    // A policy is recorded again where its reason alone is new: its entry may have been erased.
    let keep = keep.or(known.map(|known| known.keep)).ok_or_else(|| null("keep"))?;
    let policy = Policy {
        keep,
        keep_seconds: longest_seconds(keep)?,
        locked: locked.or(known.map(|known| known.locked)).unwrap_or(false),
        needs_export: needs_export.or(known.map(|known| known.needs_export)).unwrap_or(true),
        needs_published: needs_published.or(known.map(|known| known.needs_published)).unwrap_or(false),
    };
    if let Some(what) = known.and_then(|known| known.weakened_by(&policy)) {
        return Err(Error::LockedPolicy { what });
    }
    if known == Some(&policy) && !is_question {
        notice("this is the policy already");
        return Ok(before);
    }
    let mut detail = policy.to_json();
    detail["reason"] = reason.into();
    set(&extension, policy, detail, before).map(Some)
}

/// Records a policy that follows the one `before`, which is locked or not, by an entry of this detail.
pub fn set(
    extension: &Extension,
    policy: Policy,
    mut detail: Value,
    before: Option<Recorded>,
) -> Result<Recorded, Error> {
    let version = before.as_ref().map_or(0, |before| before.version) + 1;
    detail["version"] = version.into();
    if let Some(before) = before {
        detail["previous"] = before.policy.to_json();
    }
    let place = record("RETENTION", None, &detail, session::effective_role())?;
    insert(extension, version, &policy, &place)?;
    log::flush();
    xact::make_visible();
    let (chain, seq) = (place.chain as i32, place.seq);
    Ok(Recorded { policy, version, chain, seq, at: place.at })
}

fn insert(extension: &Extension, version: i64, policy: &Policy, place: &Place) -> Result<(), Error> {
    let mut row = RowBuffer::default();
    let Interval { months, days, microseconds } = policy.keep;
    row.fill(&[
        ColumnValue::Eight(version.unsigned_abs()),
        ColumnValue::Interval { months, days, microseconds },
        ColumnValue::Eight(policy.keep_seconds.unsigned_abs()),
        ColumnValue::Bool(policy.locked),
        ColumnValue::Bool(policy.needs_export),
        ColumnValue::Bool(policy.needs_published),
        ColumnValue::Four(place.chain),
        ColumnValue::Eight(place.seq as u64),
        ColumnValue::Eight(place.at as u64),
    ]);
    let table = extension.table(OwnTable::RetentionPolicy)?;
    table::insert(table, None, vec![Tuple::new(&row, (0, 0))]);
    Ok(())
}

/// The longest that an interval may be, in seconds: 1000 years. A locked policy cannot be taken back, and a
/// time that is added to a date must remain one.
const MAX_KEEP: i64 = 365_250 * 86_400;

/// The longest time that an interval can last, in whole seconds: `n` months last longest between certain
/// dates, a day has 24 hours. That of a longer interval is never less: an interval is longer if none of its
/// parts is less.
fn longest_seconds(keep: Interval) -> Result<i64, Error> {
    /// How many days so many months have at most.
    const MONTHS: [i64; 12] = [0, 31, 62, 92, 123, 153, 184, 215, 245, 276, 306, 337];
    let bad = |reason| Error::BadKeep { reason };
    if keep.months < 0 || keep.days < 0 || keep.microseconds < 0 {
        return Err(bad("must not have a negative part"));
    }
    let (years, months) = (i64::from(keep.months) / 12, keep.months as usize % 12);
    // Four years have at most one leap day.
    let days = years * 365 + (years + 3) / 4 + MONTHS[months] + i64::from(keep.days);
    let seconds =
        days * 86_400 + (keep.microseconds / 1_000_000) + i64::from(keep.microseconds % 1_000_000 > 0);
    match seconds {
        0 => Err(bad("must be longer than zero")),
        1..=MAX_KEEP => Ok(seconds),
        _ => Err(bad("must be at most 1000 years")),
    }
}

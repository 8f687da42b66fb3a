//! The table of results: one row per measure.

use crate::measure::Series;
use crate::subject::{ALL, Subject};
use std::fmt::Write;

/// The goal of a measure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Goal {
    AtLeast(f64),
    AtMost(f64),
}

/// The figure that is compared with the goal.
#[derive(Clone, Debug)]
struct Outcome {
    what: String,
    value: f64,
    /// The lowest and the highest value of the rounds.
    range: Option<(f64, f64)>,
}

/// One measure.
#[derive(Clone, Debug, Default)]
pub struct Row {
    measure: String,
    unit: &'static str,
    figures: Vec<(Subject, f64)>,
    reference: Option<(String, f64)>,
    result: Option<Outcome>,
    goal: Option<Goal>,
    note: Option<String>,
}

impl Default for Goal {
    fn default() -> Self {
        Self::AtLeast(0.0)
    }
}

impl Row {
    pub fn new(measure: impl Into<String>, unit: &'static str) -> Self {
        Self { measure: measure.into(), unit, ..Self::default() }
    }

    /// Adds the figure of a subject.
    pub fn figure(mut self, subject: Subject, value: f64) -> Self {
        self.figures.push((subject, value));
        self
    }

    /// Adds the median of every subject.
    pub fn medians(mut self, subjects: &[Subject], series: &[Series]) -> Self {
        self.figures.extend(subjects.iter().zip(series).map(|(subject, series)| (*subject, series.median())));
        self
    }

    /// Sets the reference that the figures are compared with, if it is not a subject.
    pub fn reference(mut self, what: impl Into<String>, value: f64) -> Self {
        self.reference = Some((what.into(), value));
        self
    }

    /// Sets the figure that is compared with the goal.
    pub fn result(mut self, what: impl Into<String>, value: f64) -> Self {
        self.result = Some(Outcome { what: what.into(), value, range: None });
        self
    }

    /// Sets the figure that is compared with the goal, and the range of its rounds.
    pub fn result_in(mut self, what: impl Into<String>, value: f64, rounds: &Series) -> Self {
        let range = (rounds.0.len() > 1).then(|| rounds.range());
        self.result = Some(Outcome { what: what.into(), value, range });
        self
    }

    pub fn goal(mut self, goal: Goal) -> Self {
        self.goal = Some(goal);
        self
    }

    /// Adds a note below the table.
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.note = Some(note.into());
        self
    }

    /// Whether the goal is reached, or `None` if there is no goal or no result.
    fn reached(&self) -> Option<bool> {
        let value = self.result.as_ref()?.value;
        if value.is_nan() {
            return None;
        }
        Some(match self.goal? {
            Goal::AtLeast(goal) => value >= goal,
            Goal::AtMost(goal) => value <= goal,
        })
    }

    fn cells(&self, judged: bool) -> Vec<String> {
        let mut cells = vec![format!("{}, {}", self.measure, self.unit)];
        for subject in ALL {
            let found = self.figures.iter().find(|(s, _)| *s == subject);
            cells.push(found.map_or_else(String::new, |(_, value)| figure(*value)));
        }
        let text = |(what, value): &(String, f64)| format!("{} ({what})", figure(*value));
        cells.push(self.reference.as_ref().map(text).unwrap_or_default());
        cells.push(match &self.result {
            None => String::new(),
            Some(Outcome { what, value, range: None }) => format!("{what} = {}", figure(*value)),
            Some(Outcome { what, value, range: Some((low, high)) }) => {
                format!("{what} = {} ({} to {})", figure(*value), figure(*low), figure(*high))
            }
        });
        cells.push(match self.goal {
            None => String::new(),
            Some(Goal::AtLeast(goal)) => format!("≥ {goal}"),
            Some(Goal::AtMost(goal)) => format!("≤ {goal}"),
        });
        cells.push(match self.reached().filter(|_| judged) {
            None => String::new(),
            Some(true) => "yes".into(),
            Some(false) => "**no**".into(),
        });
        cells
    }
}

/// Formats a figure with three significant digits, or as a whole number from 100 on.
pub fn figure(value: f64) -> String {
    if value.is_nan() {
        return "–".into();
    }
    let digits = if value == 0.0 { 0 } else { value.abs().log10().floor().clamp(-9.0, 9.0) as i32 };
    let places = usize::try_from(2 - digits).unwrap_or(0);
    let mut text = format!("{value:.places$}");
    if value.abs() >= 10_000.0 {
        let split = text.len() - 3;
        text.insert(split, ',');
        if text.len() > 7 + usize::from(value < 0.0) {
            text.insert(split - 3, ',');
        }
    }
    text
}

/// Formats the rows as a Markdown table. The columns are aligned, so that it also reads well on a terminal.
/// It says whether goals are reached only if the figures can be `judged`.
pub fn table(rows: &[Row], judged: bool) -> String {
    let mut lines = vec![vec!["measure".to_owned()]];
    lines[0].extend(ALL.map(|subject| subject.label().to_owned()));
    lines[0].extend(["reference", "ratio (lowest to highest round)", "goal", "reached"].map(str::to_owned));
    lines.extend(rows.iter().map(|row| row.cells(judged)));
    let columns = lines[0].len();
    let widths: Vec<usize> =
        (0..columns).map(|c| lines.iter().map(|line| line[c].chars().count()).max().unwrap_or(0)).collect();
    let mut out = String::new();
    for (n, line) in lines.iter().enumerate() {
        for (cell, width) in line.iter().zip(&widths) {
            let _ = write!(out, "| {cell:<width$} ");
        }
        out.push_str("|\n");
        if n == 0 {
            for width in &widths {
                let _ = write!(out, "|{}", "-".repeat(width + 2));
            }
            out.push_str("|\n");
        }
    }
    let notes: Vec<_> = rows.iter().filter_map(|row| Some((&row.measure, row.note.as_ref()?))).collect();
    if !notes.is_empty() {
        out.push('\n');
    }
    for (measure, note) in notes {
        let _ = writeln!(out, "* {measure}: {note}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_three_digits() {
        let texts = [0.0, 0.012345, 0.97, 5.0, 99.94, 1234.5, 12345.6, 1_234_567.0, f64::NAN].map(figure);
        assert_eq!(texts, ["0.00", "0.0123", "0.970", "5.00", "99.9", "1234", "12,346", "1,234,567", "–"]);
    }

    #[test]
    fn a_goal_is_judged_by_the_result() {
        let row = |value| Row::new("m", "u").result("a / b", value).goal(Goal::AtLeast(0.85));
        assert_eq!(row(0.85).reached(), Some(true));
        assert_eq!(row(0.84).reached(), Some(false));
        assert_eq!(row(f64::NAN).reached(), None);
        assert_eq!(Row::new("m", "u").result("a", 1.0).goal(Goal::AtMost(0.9)).reached(), Some(false));
        assert_eq!(Row::new("m", "u").result("a", 1.0).reached(), None);
    }

    #[test]
    fn unreliable_figures_are_not_judged() {
        let rows = [Row::new("m", "u").result("a", 1.0).goal(Goal::AtLeast(0.5))];
        assert!(table(&rows, true).contains("| yes"));
        assert!(!table(&rows, false).contains("yes"));
    }

    #[test]
    fn every_line_has_every_column() {
        let rows = [Row::new("m", "u").figure(Subject::AuditChain, 1.0).note("n")];
        let table = table(&rows, true);
        let lines: Vec<_> = table.lines().filter(|line| line.starts_with('|')).collect();
        assert_eq!(lines.len(), 3);
        assert!(lines.iter().all(|line| line.matches('|').count() == 10), "{table}");
        assert!(table.ends_with("\n* m: n\n"));
    }
}

//! Rounds, medians and ratios.
//!
//! Subjects are measured in alternation, and each round begins with another subject. If the machine becomes
//! slower or faster, this affects all subjects equally.

use harness::Error;
use std::time::{Duration, Instant};

/// One figure for each round.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Series(pub Vec<f64>);

impl Series {
    /// The median, or NaN if there are no values.
    pub fn median(&self) -> f64 {
        let mut values = self.0.clone();
        values.sort_by(f64::total_cmp);
        match values.len() {
            0 => f64::NAN,
            n if n % 2 == 1 => values[n / 2],
            n => f64::midpoint(values[n / 2 - 1], values[n / 2]),
        }
    }

    /// Combines the figures of two series, round by round.
    pub fn zip(&self, other: &Self, f: impl Fn(f64, f64) -> f64) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(a, b)| f(*a, *b)).collect())
    }

    /// The lowest and the highest value.
    pub fn range(&self) -> (f64, f64) {
        self.0.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(*v), high.max(*v)))
    }
}

/// Measures every item once per round. Returns a series for each item.
pub fn alternate<T, E>(
    items: &[T],
    rounds: usize,
    mut measure: impl FnMut(&T) -> Result<f64, E>,
) -> Result<Vec<Series>, E> {
    let mut series = vec![Series::default(); items.len()];
    for round in 0..rounds {
        for step in 0..items.len() {
            let which = (round + step) % items.len();
            series[which].0.push(measure(&items[which])?);
        }
    }
    Ok(series)
}

/// Returns how long `f` took, and its result.
pub fn timed<T, E>(f: impl FnOnce() -> Result<T, E>) -> Result<(Duration, T), E> {
    let start = Instant::now();
    let value = f()?;
    Ok((start.elapsed(), value))
}

/// The processor time that a process has used, in s: its directory in /proc is the argument. Unlike the time
/// of the clock it does not grow while other work has the cores. A process must wait, for the time to be
/// exact.
pub fn processor_time(process: &str) -> Result<f64, Error> {
    let path = format!("/proc/{process}/schedstat");
    let text = std::fs::read_to_string(&path).map_err(|error| Error::new(format!("{path}: {error}")))?;
    let nanoseconds: Option<f64> = text.split_whitespace().next().and_then(|first| first.parse().ok());
    Ok(nanoseconds.ok_or_else(|| Error::new(format!("{path} says no time")))? * 1e-9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(Series(vec![9.0, 1.0, 2.0]).median(), 2.0);
        assert_eq!(Series(vec![4.0, 1.0, 2.0, 100.0]).median(), 3.0);
        assert!(Series(vec![]).median().is_nan());
    }

    #[test]
    fn every_round_begins_with_another_item() {
        let mut order = String::new();
        let series = alternate(&["a", "b", "c"], 3, |item| {
            order.push_str(item);
            Ok::<_, ()>(order.len() as f64)
        });
        assert_eq!(order, "abcbcacab");
        assert_eq!(series.unwrap()[1].0, [2.0, 4.0, 9.0]);
    }

    #[test]
    fn processor_time_grows_with_work_only() {
        let spent = |process: &str| processor_time(process).unwrap();
        let mut idle = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let process = idle.id().to_string();
        let (before, own) = (spent(&process), spent("thread-self"));
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(100) {
            std::hint::black_box(own);
        }
        let (after, own_after) = (spent(&process), spent("thread-self"));
        idle.kill().unwrap();
        idle.wait().unwrap();
        assert!(own_after > own, "{own} {own_after}");
        assert!(after - before < own_after - own);
    }

    #[test]
    fn ratios_are_computed_round_by_round() {
        let ratio = Series(vec![2.0, 9.0]).zip(&Series(vec![1.0, 3.0]), |a, b| a / b);
        assert_eq!((ratio.0.clone(), ratio.range()), (vec![2.0, 3.0], (2.0, 3.0)));
    }
}

//! Rounds, medians and ratios.
//!
//! Subjects are measured in alternation, and each round begins with another subject. If the machine becomes
//! slower or faster, this affects all subjects equally.

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
    fn ratios_are_computed_round_by_round() {
        let ratio = Series(vec![2.0, 9.0]).zip(&Series(vec![1.0, 3.0]), |a, b| a / b);
        assert_eq!((ratio.0.clone(), ratio.range()), (vec![2.0, 3.0], (2.0, 3.0)));
    }
}

//! A progress bar on the standard error, where a human is looking.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar over `total` entries; hidden if `quiet`, or where the standard error is not a terminal.
#[must_use]
pub fn bar(what: &str, total: u64, quiet: bool) -> ProgressBar {
    let target = if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr_with_hz(5) };
    let bar = ProgressBar::with_draw_target(Some(total), target);
    let template = "{msg} {wide_bar} {human_pos}/{human_len} entries, {per_sec}, {eta} left";
    bar.set_style(ProgressStyle::with_template(template).expect("the template is valid"));
    bar.set_message(what.to_owned());
    bar
}

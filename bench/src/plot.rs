//! The plot of throughput against the number of clients.

use crate::experiments::clients::Curve;
use crate::subject::Subject;
use harness::{Error, Result};
use plotters::prelude::*;
use std::path::Path;

/// Writes the curves to an SVG file, with logarithmic axes.
pub fn write(curves: &[Curve], title: &str, path: &Path) -> Result<()> {
    draw(curves, title, path).map_err(|error| Error::new(format!("{}: {error}", path.display())))
}

fn draw(curves: &[Curve], title: &str, path: &Path) -> std::result::Result<(), Box<dyn std::error::Error>> {
    let points = || curves.iter().flat_map(|(_, points)| points.iter().copied());
    let most = points().map(|(clients, _)| clients).max().unwrap_or(64);
    let low = points().map(|(_, tps)| tps).fold(f64::INFINITY, f64::min).max(1.0);
    let high = points().map(|(_, tps)| tps).fold(10.0, f64::max);

    let area = SVGBackend::new(path, (860, 520)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 20))
        .margin(16)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d(
            (1_f64..f64::from(most) * 1.05).log_scale().base(2.0),
            (low * 0.8..high * 1.3).log_scale(),
        )?;
    chart
        .configure_mesh()
        .x_desc("clients")
        .y_desc("transactions a second")
        .x_label_formatter(&|clients| format!("{clients:.0}"))
        .y_label_formatter(&|tps| format!("{tps:.0}"))
        .light_line_style(WHITE)
        .draw()?;
    for (subject, points) in curves {
        let color = color(*subject);
        let line: Vec<(f64, f64)> = points.iter().map(|(clients, tps)| (f64::from(*clients), *tps)).collect();
        chart
            .draw_series(LineSeries::new(line.iter().copied(), color.stroke_width(2)).point_size(4))?
            .label(subject.label())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 22, y)], color.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.9))
        .border_style(BLACK.mix(0.3))
        .label_font(("sans-serif", 14))
        .draw()?;
    area.present()?;
    Ok(())
}

/// Colours that colour-blind readers can tell apart.
fn color(subject: Subject) -> RGBColor {
    match subject {
        Subject::Unaudited => RGBColor(90, 90, 90),
        Subject::AuditChain => RGBColor(0, 114, 178),
        Subject::SupaLike => RGBColor(230, 159, 0),
        Subject::HomeMade => RGBColor(213, 94, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_subject_is_in_the_plot() {
        let path = std::env::temp_dir().join(format!("plot-{}.svg", std::process::id()));
        let curves: Vec<Curve> = crate::subject::ALL
            .map(|subject| (subject, vec![(1, 300.0), (8, 2000.0 * (1.0 + f64::from(subject as u8)))]))
            .to_vec();
        write(&curves, "a title", &path).unwrap();
        let svg = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        for text in ["a title", "unaudited", "audit_chain", "supa_audit-like", "home-made chain"] {
            assert!(svg.contains(text), "{text}");
        }
    }
}

//! Line charts as inline SVG. The legend is text below the chart, because inside it would hide lines.

use anyhow::{Result, anyhow};
use plotters::{
    backend::SVGBackend,
    chart::ChartBuilder,
    drawing::IntoDrawingArea,
    series::LineSeries,
    style::{Color, IntoFont, Palette, Palette99, TRANSPARENT, WHITE},
};

/// One named line.
#[derive(Debug, Clone)]
pub struct Line {
    pub name: String,
    pub points: Vec<(f64, f64)>,
}

/// A chart's frame.
#[derive(Debug, Clone, Copy)]
pub struct Chart<'a> {
    pub title: &'a str,
    pub x: &'a str,
    pub y: &'a str,
    /// Logarithmic: latencies span decades.
    pub log: bool,
}

const SIZE: (u32, u32) = (860, 320);
/// The lowest value of a logarithmic axis, in milliseconds.
const LEAST_MS: f64 = 0.1;

impl Line {
    pub fn new(name: impl Into<String>, points: impl IntoIterator<Item = (f64, f64)>) -> Self {
        Self { name: name.into(), points: points.into_iter().collect() }
    }
}

impl Chart<'_> {
    /// The chart as a `<figure>`; empty when there is nothing to draw.
    ///
    /// # Errors
    /// When plotters refuses, which it has no reason to.
    pub fn figure(&self, lines: &[Line]) -> Result<String> {
        let lines: Vec<&Line> = lines.iter().filter(|line| !line.points.is_empty()).collect();
        let points = || lines.iter().flat_map(|line| &line.points);
        if points().next().is_none() {
            return Ok(String::new());
        }
        let bounds = |pick: fn(&(f64, f64)) -> f64| {
            points().map(pick).fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), value| {
                (least.min(value), most.max(value))
            })
        };
        let (x_least, x_most) = bounds(|point| point.0);
        let (_, y_most) = bounds(|point| point.1);
        let x = x_least..x_most.max(x_least + f64::EPSILON);
        let mut svg = String::new();
        {
            let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
            area.fill(&WHITE).map_err(problem)?;
            let mut builder = ChartBuilder::on(&area);
            builder
                .caption(self.title, ("sans-serif", 17).into_font())
                .margin(10)
                .x_label_area_size(36)
                .y_label_area_size(64);
            // The two axes are different types, so the drawing is written once as a macro.
            macro_rules! draw {
                ($y:expr) => {{
                    let mut chart = builder.build_cartesian_2d(x, $y).map_err(problem)?;
                    chart
                        .configure_mesh()
                        .x_desc(self.x)
                        .y_desc(self.y)
                        .light_line_style(TRANSPARENT)
                        .y_label_formatter(&|value| short(*value))
                        .draw()
                        .map_err(problem)?;
                    for (n, line) in lines.iter().enumerate() {
                        let style = Palette99::pick(n).stroke_width(2);
                        let points = line
                            .points
                            .iter()
                            .map(|(x, y)| (*x, if self.log { y.max(LEAST_MS) } else { *y }));
                        chart.draw_series(LineSeries::new(points, style)).map_err(problem)?;
                    }
                }};
            }
            if self.log {
                draw!(plotters::coord::combinators::IntoLogRange::log_scale(LEAST_MS..y_most.max(1.0) * 1.1));
            } else {
                draw!(0.0..(y_most * 1.1).max(f64::EPSILON));
            }
            area.present().map_err(problem)?;
        }
        Ok(format!("<figure>{svg}<figcaption>{}</figcaption></figure>", legend(&lines)))
    }
}

fn legend(lines: &[&Line]) -> String {
    let entry = |(n, line): (usize, &&Line)| {
        let (red, green, blue) = Palette99::pick(n).to_rgba().rgb();
        format!("<span style=\"color:rgb({red},{green},{blue})\">━</span> {}", line.name)
    };
    lines.iter().enumerate().map(entry).collect::<Vec<_>>().join(" &nbsp; ")
}

fn problem(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("draw a chart: {error}")
}

/// Figures as people write them on axes.
fn short(value: f64) -> String {
    match value {
        1e6.. => format!("{}M", value / 1e6),
        1e3.. => format!("{}k", value / 1e3),
        10.0.. => format!("{value:.0}"),
        _ => format!("{}", (value * 100.0).round() / 100.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chart_is_one_figure_with_its_names() {
        for log in [false, true] {
            let chart = Chart { title: "Latency", x: "s", y: "ms", log };
            let svg =
                chart.figure(&[Line::new("p50", [(0.0, 0.5), (1.0, 30.0)]), Line::new("p99", [])]).unwrap();
            assert!(svg.starts_with("<figure><svg") && svg.ends_with("</figure>"), "{svg}");
            assert!(!svg.contains("p99"), "a line without points");
            for text in ["Latency", "p50"] {
                assert!(svg.contains(text), "no {text}");
            }
        }
    }

    #[test]
    fn nothing_to_draw_is_nothing() {
        let chart = Chart { title: "x", x: "x", y: "y", log: false };
        assert_eq!(chart.figure(&[Line::new("a", [])]).unwrap(), "");
    }
}

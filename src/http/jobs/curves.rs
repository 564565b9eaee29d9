//! A job's learning curves as an SVG image: losses above, the task's metrics below, with one step
//! axis. Two panels of lines need no plotting library. Background and font sizes are set, so that
//! the image looks the same in a README and a browser.

use std::fmt::Write as _;

use crate::domain::{checkpoint::Metrics, recipe::Metric};

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 620.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 24.0;
/// The most points of a line; neighbors are averaged beyond that.
const POINTS: usize = 500;

const TRAIN: &str = "#7f8fa6";
const VALID: &str = "#c8501e";
const ACCURACY: &str = "#1f6f54";
const BALANCED: &str = "#6a4ca3";

/// Data to draw.
pub(crate) struct Curves<'a> {
    /// Text from the user, escaped here.
    pub title: &'a str,
    /// Step and training loss in nats, ascending.
    pub train_loss: Vec<(f64, f64)>,
    /// Ascending.
    pub evaluations: &'a [Metrics],
    /// Step of the best checkpoint.
    pub best_step: Option<u64>,
}

/// One line of a panel.
struct Line {
    name: &'static str,
    color: &'static str,
    points: Vec<(f64, f64)>,
    dots: bool,
}

/// A coordinate system and its place in the image.
struct Panel {
    /// Data range of each axis, from 0.
    x: f64,
    y: f64,
    top: f64,
    bottom: f64,
}

impl Panel {
    fn x(&self, value: f64) -> f64 {
        LEFT + value / self.x * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        self.bottom - value / self.y * (self.bottom - self.top)
    }
}

/// The image, a complete SVG document.
pub(crate) fn svg(curves: &Curves<'_>) -> String {
    let losses = [
        Line {
            name: "training loss",
            color: TRAIN,
            points: thinned(&curves.train_loss),
            dots: false,
        },
        Line {
            name: "validation loss",
            color: VALID,
            points: curves.evaluated(Metric::ValidLoss),
            dots: true,
        },
    ];
    let (label, metrics) = curves.metric_lines();
    let top = if label == "error" {
        ticks(highest(&metrics, |point| point.1).max(1e-9), 5).1
    } else {
        1.0
    };
    let (_, loss_top) = ticks(highest(&losses, |point| point.1).max(0.1), 5);
    let step = |point: &(f64, f64)| point.0;
    let last = highest(&losses, step).max(highest(&metrics, step)).max(1.0);
    let upper = Panel {
        x: last,
        y: loss_top,
        top: 64.0,
        bottom: 310.0,
    };
    let lower = Panel {
        x: last,
        y: top,
        top: 374.0,
        bottom: 566.0,
    };

    let mut out = String::with_capacity(32 << 10);
    let _ = write!(
        out,
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" font-family="DejaVu Sans, Helvetica, Arial, sans-serif" font-size="13" fill="#22272e"><rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/><text x="{LEFT}" y="30" font-size="17" font-weight="bold">{}</text>"##,
        escape(curves.title)
    );
    panel(&mut out, &upper, "loss", &losses, curves.best_step);
    panel(&mut out, &lower, label, &metrics, curves.best_step);
    let _ = write!(
        out,
        r#"<text x="{:.1}" y="{:.1}" text-anchor="middle">optimizer step</text></svg>"#,
        (LEFT + WIDTH - RIGHT) / 2.0,
        lower.bottom + 44.0
    );
    out
}

impl Curves<'_> {
    /// Step and value of a metric, where it was measured.
    fn evaluated(&self, metric: Metric) -> Vec<(f64, f64)> {
        let values = self.evaluations.iter();
        values
            .filter_map(|metrics| Some((metrics.step as f64, metrics.get(metric)?)))
            .filter(|(_, value)| value.is_finite())
            .collect()
    }

    /// The label of the lower panel, and its lines: the metrics of the job's task.
    fn metric_lines(&self) -> (&'static str, [Line; 2]) {
        let has = |metric| self.evaluations.iter().any(|all| all.get(metric).is_some());
        let (label, first, mut second) = if has(Metric::ValidMeanAveragePrecision) {
            let average = (Metric::ValidMeanAveragePrecision, "mean average precision");
            ("precision, F1", average, (Metric::ValidMacroF1, "macro F1"))
        } else if has(Metric::ValidRmse) {
            let rmse = (Metric::ValidRmse, "validation RMSE");
            ("error", rmse, (Metric::ValidMae, "validation MAE"))
        } else {
            let accuracy = (Metric::ValidAccuracy, "validation accuracy");
            let balanced = (Metric::ValidBalancedAccuracy, "balanced accuracy");
            ("accuracy", accuracy, balanced)
        };
        // Present only if it selects the best checkpoint.
        if has(Metric::ValidRocAuc) {
            second = (Metric::ValidRocAuc, "ROC-AUC");
        }
        let line = |(metric, name), color, dots| Line {
            name,
            color,
            points: self.evaluated(metric),
            dots,
        };
        (
            label,
            [line(first, ACCURACY, true), line(second, BALANCED, false)],
        )
    }
}

fn highest(lines: &[Line], coordinate: impl Fn(&(f64, f64)) -> f64) -> f64 {
    let points = lines.iter().flat_map(|line| &line.points);
    points.map(coordinate).fold(0.0, f64::max)
}

fn panel(out: &mut String, panel: &Panel, label: &str, lines: &[Line], best_step: Option<u64>) {
    axes(out, panel, label);
    if let Some(best) = best_step
        .map(|step| step as f64)
        .filter(|step| *step <= panel.x)
    {
        let x = panel.x(best);
        let (top, bottom) = (panel.top, panel.bottom);
        // The label goes to the side that has room.
        let is_right = x > WIDTH / 2.0;
        let (anchor, offset) = if is_right {
            ("end", -5.0)
        } else {
            ("start", 5.0)
        };
        let _ = write!(
            out,
            r##"<path d="M{x:.1} {top:.1}V{bottom:.1}" stroke="#22272e" stroke-dasharray="3 4" opacity="0.55"/><text x="{:.1}" y="{:.1}" font-size="11" text-anchor="{anchor}" opacity="0.8">best</text>"##,
            x + offset,
            bottom - 6.0
        );
    }
    for line in lines {
        draw(out, panel, line);
    }
    legend(out, panel, lines);
    if lines.iter().all(|line| line.points.is_empty()) {
        let _ = write!(
            out,
            r#"<text x="{:.1}" y="{:.1}" text-anchor="middle" opacity="0.6">no data yet</text>"#,
            WIDTH / 2.0,
            (panel.top + panel.bottom) / 2.0
        );
    }
}

fn axes(out: &mut String, panel: &Panel, label: &str) {
    let (top, bottom, right) = (panel.top, panel.bottom, WIDTH - RIGHT);
    for tick in multiples(ticks(panel.y, 5).0, panel.y) {
        let y = panel.y(tick);
        let _ = write!(
            out,
            r##"<path d="M{LEFT} {y:.1}H{right}" stroke="#e3e6ea"/><text x="{:.1}" y="{:.1}" text-anchor="end">{}</text>"##,
            LEFT - 8.0,
            y + 4.5,
            number(tick)
        );
    }
    for tick in multiples(ticks(panel.x, 8).0.max(1.0), panel.x) {
        let x = panel.x(tick);
        let _ = write!(
            out,
            r##"<path d="M{x:.1} {bottom:.1}v5" stroke="#22272e"/><text x="{x:.1}" y="{:.1}" text-anchor="middle">{}</text>"##,
            bottom + 20.0,
            number(tick)
        );
    }
    let middle = (top + bottom) / 2.0;
    let _ = write!(
        out,
        r##"<path d="M{LEFT} {top:.1}V{bottom:.1}H{right}" fill="none" stroke="#22272e"/><text transform="translate(20 {middle:.1}) rotate(-90)" text-anchor="middle">{label}</text>"##
    );
}

/// The multiples of `step` from 0 to `high`.
fn multiples(step: f64, high: f64) -> impl Iterator<Item = f64> {
    let multiples = (0..).map(move |n| f64::from(n) * step);
    multiples.take_while(move |multiple| *multiple <= high + step * 1e-6)
}

fn draw(out: &mut String, panel: &Panel, line: &Line) {
    if line.points.is_empty() {
        return;
    }
    let width = if line.dots { 2.2 } else { 1.6 };
    let _ = write!(
        out,
        r#"<polyline fill="none" stroke="{}" stroke-width="{width}" stroke-linejoin="round" points=""#,
        line.color
    );
    for &(x, y) in &line.points {
        let _ = write!(out, "{:.1},{:.1} ", panel.x(x), panel.y(y));
    }
    out.push_str(r#""/>"#);
    // More dots would touch; a single point is visible only as a dot.
    if (line.dots && line.points.len() <= 60) || line.points.len() == 1 {
        for &(x, y) in &line.points {
            let _ = write!(
                out,
                r#"<circle cx="{:.1}" cy="{:.1}" r="3" fill="{}"/>"#,
                panel.x(x),
                panel.y(y),
                line.color
            );
        }
    }
}

/// An entry per line, above the panel on the right.
fn legend(out: &mut String, panel: &Panel, lines: &[Line]) {
    let y = panel.top - 12.0;
    let mut x = WIDTH - RIGHT - 190.0 * lines.len() as f64;
    for line in lines {
        let _ = write!(
            out,
            r#"<path d="M{x:.1} {:.1}h26" stroke="{}" stroke-width="3"/><text x="{:.1}" y="{y:.1}">{}</text>"#,
            y - 4.5,
            line.color,
            x + 32.0,
            line.name
        );
        x += 190.0;
    }
}

/// At most `POINTS` points, each the mean of its neighbors.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let finite: Vec<(f64, f64)> = points
        .iter()
        .copied()
        .filter(|(_, y)| y.is_finite())
        .collect();
    let size = finite.len().div_ceil(POINTS).max(1);
    let mean = |chunk: &[(f64, f64)]| {
        let count = chunk.len() as f64;
        let (x, y) = (chunk.iter().map(|p| p.0), chunk.iter().map(|p| p.1));
        (x.sum::<f64>() / count, y.sum::<f64>() / count)
    };
    finite.chunks(size).map(mean).collect()
}

/// The distance between ticks (1, 2 or 5 times a power of ten) for about `count` of them up to
/// `high`, and the first tick at or above `high`.
fn ticks(high: f64, count: u32) -> (f64, f64) {
    let raw = (high / f64::from(count)).max(1e-9);
    let power = 10f64.powf(raw.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|m| m * power)
        .find(|step| *step >= raw * 0.999)
        .unwrap_or(raw);
    (step, (high / step - 1e-9).ceil().max(1.0) * step)
}

/// Formats without trailing zeros.
fn number(value: f64) -> String {
    let text = format!("{value:.6}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn escape(text: &str) -> String {
    text.replace(char::is_control, "")
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_cover_the_range() {
        assert_eq!(ticks(1.0, 5), (0.2, 1.0));
        assert_eq!(ticks(1.79, 5), (0.5, 2.0));
        assert_eq!(ticks(870.0, 8), (200.0, 1000.0));
        assert_eq!(number(0.2), "0.2");
        assert_eq!(number(200.0), "200");
    }

    #[test]
    fn thinned_points_keep_their_mean() {
        let points: Vec<(f64, f64)> = (0..10_000).map(|n| (f64::from(n), 2.0)).collect();
        let thin = thinned(&points);
        assert!(thin.len() <= POINTS);
        assert!(thin.iter().all(|point| (point.1 - 2.0).abs() < 1e-12));
    }

    #[test]
    fn the_selecting_metric_is_drawn() {
        let evaluated = |valid_roc_auc| Metrics {
            step: 1,
            valid_accuracy: Some(0.5),
            valid_balanced_accuracy: Some(0.5),
            valid_roc_auc,
            ..Metrics::default()
        };
        let drawn = |evaluations: &[Metrics]| {
            svg(&Curves {
                title: "mine",
                train_loss: Vec::new(),
                evaluations,
                best_step: None,
            })
        };
        let names = |image: &str| ["balanced accuracy", "ROC-AUC"].map(|name| image.contains(name));
        assert_eq!(names(&drawn(&[evaluated(None)])), [true, false]);
        assert_eq!(names(&drawn(&[evaluated(Some(0.7))])), [false, true]);
    }

    #[test]
    fn the_title_is_escaped() {
        let image = svg(&Curves {
            title: "<script>&\"\u{0}",
            train_loss: vec![(1.0, f64::NAN)],
            evaluations: &[],
            best_step: None,
        });
        assert!(image.contains("&lt;script&gt;&amp;&quot;</text>"));
        assert!(!image.contains("NaN"));
    }
}

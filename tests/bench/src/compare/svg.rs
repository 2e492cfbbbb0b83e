//! Core: the results as one chart that needs nothing beside itself: bytes against rows per batch, and at
//! 100 rows bytes against the CPU of encoding. Colours follow the reader's light or dark scheme; every
//! line and point bears its own name.

use std::fmt::Write as _;

use super::Group;
use super::codecs::{JSON, POSTCARD, RICE, SENT};
use super::measure::{Cell, Results};
use super::summary::{mean_of, summaries};

const WIDTH: f64 = 960.0;
/// The left plot's own width, where there is no CPU to show.
const LEFT: f64 = 540.0;
const HEIGHT: f64 = 480.0;
/// The plots' upper and lower edge.
const TOP: f64 = 74.0;
const BOTTOM: f64 = 424.0;
/// A line of labels, and the width of a letter in them.
const LINE: f64 = 14.0;
const LETTER: f64 = 5.9;
/// How far from its point a label may stand untied.
const TIE_FROM: f64 = 9.0;
/// The size that the right plot is about.
const CPU_ROWS: usize = 100;
/// Bytes per sample at the edges of both plots.
const BYTES: (f64, f64) = (0.5, 40.0);
/// Codecs of the left plot beside ours and the best shipped.
const LINES: [&str; 7] = [
    RICE,
    "pco + zstd 3",
    "postcard + zstd 9 + dictionary",
    POSTCARD,
    JSON,
    "JSON array + LZ4",
    "Sparkplug B",
];
/// Codecs of the right plot beside ours.
const POINTS: [&str; 12] = [
    RICE,
    "headwater, varint",
    "pco",
    "pco + zstd 3",
    "postcard",
    POSTCARD,
    "postcard + zstd 9 + dictionary",
    JSON,
    "JSON + gzip",
    "JSON array + LZ4",
    "Sparkplug B",
    "Arrow IPC + zstd 3",
];

const STYLE: &str = "
  .back { fill: #ffffff } .grid { stroke: #d8dee4; stroke-width: 1 }
  text { font: 11px system-ui, 'Segoe UI', Helvetica, Arial, sans-serif; fill: #57606a }
  .title { font-size: 15px; font-weight: 600; fill: #1f2328 } .sub { font-size: 12px }
  .line { fill: none; stroke-width: 1.5; stroke-linejoin: round }
  .ours { stroke: #0b5cd5; fill: #0b5cd5 } .best { stroke: #b54708; fill: #b54708 }
  .other { stroke: #8c959f; fill: #8c959f } .line.ours, .line.best { stroke-width: 3; fill: none }
  .tie { stroke-width: 1 } .line.ours.thin { stroke-width: 1.8; stroke-dasharray: 5 3 } .line.other { fill: none }
  text.ours { fill: #0b5cd5 } text.best { fill: #b54708 }
  text.other { fill: #57606a } text.bold { font-weight: 600 }
  text.label { stroke: #ffffff; stroke-width: 3; paint-order: stroke; stroke-linejoin: round }
  @media (prefers-color-scheme: dark) {
    .back { fill: #0d1117 } .grid { stroke: #2d333b } text { fill: #9da7b3 } .title { fill: #e6edf3 }
    .ours { stroke: #6cb0ff; fill: #6cb0ff } .best { stroke: #f0995a; fill: #f0995a }
    .other { stroke: #768390; fill: #768390 } .line.other { fill: none }
    text.label { stroke: #0d1117 } text.ours { fill: #6cb0ff } text.best { fill: #f0995a } text.other { fill: #9da7b3 }
  }
";

/// A logarithmic axis: values from `low` to `high` on pixels from `start` to `end`.
#[derive(Clone, Copy)]
struct Axis {
    low: f64,
    high: f64,
    start: f64,
    end: f64,
}

impl Axis {
    fn at(self, value: f64) -> f64 {
        let share = (value / self.low).ln() / (self.high / self.low).ln();
        self.start + share.clamp(0.0, 1.0) * (self.end - self.start)
    }

    /// 1, 2 and 5 times the powers of ten within the axis; only powers if `sparse`.
    fn ticks(self, sparse: bool) -> Vec<f64> {
        let steps: &[f64] = if sparse { &[1.0] } else { &[1.0, 2.0, 5.0] };
        (-2..6)
            .flat_map(|power| steps.iter().map(move |step| step * 10f64.powi(power)))
            .filter(|tick| (self.low * 0.999..=self.high * 1.001).contains(tick))
            .collect()
    }
}

/// The chart as one SVG file.
pub(super) fn chart(results: &Results) -> String {
    let group = match summaries(results, Group::Known).is_empty() {
        true => Group::HeldOut,
        false => Group::Known,
    };
    let (left, right) = (lines(results, group), points(results, group));
    let width = if right.is_empty() { LEFT } else { WIDTH };
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {HEIGHT}\" role=\"img\">\n\
         <title>Bytes per sample of batch codecs</title>\n<style>{STYLE}</style>\n\
         <rect class=\"back\" width=\"{width}\" height=\"{HEIGHT}\"/>\n{left}{right}</svg>\n"
    )
}

fn headline(x: f64, title: &str, sub: &str) -> String {
    format!(
        "<text class=\"title\" x=\"{x}\" y=\"28\">{title}</text>\n\
         <text class=\"sub\" x=\"{x}\" y=\"48\">{sub}</text>\n"
    )
}

fn short(value: f64) -> String {
    if value >= 1_000.0 {
        format!("{},000", value / 1_000.0)
    } else {
        value.to_string()
    }
}

fn frame(x: Axis, y: Axis, sparse: bool, below: &str) -> String {
    let mut svg = String::new();
    for tick in y.ticks(false) {
        let (at, label) = (y.at(tick), short(tick));
        let _ = writeln!(
            svg,
            "<line class=\"grid\" x1=\"{}\" y1=\"{at:.1}\" x2=\"{}\" y2=\"{at:.1}\"/>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
            x.start,
            x.end,
            x.start - 6.0,
            at + 4.0,
        );
    }
    for tick in x.ticks(sparse) {
        let (at, label) = (x.at(tick), short(tick));
        let _ = writeln!(
            svg,
            "<line class=\"grid\" x1=\"{at:.1}\" y1=\"{TOP}\" x2=\"{at:.1}\" y2=\"{BOTTOM}\"/>\
             <text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{label}</text>",
            BOTTOM + 17.0,
        );
    }
    let middle = f64::midpoint(x.start, x.end);
    let _ = writeln!(
        svg,
        "<text class=\"sub\" x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">{below}</text>",
        BOTTOM + 38.0
    );
    svg
}

/// One line of the left plot.
struct Curve {
    name: String,
    class: &'static str,
    /// (rows, bytes per sample)
    points: Vec<(f64, f64)>,
}

fn bytes(cell: &Cell) -> Option<f64> {
    Some(cell.bytes_per_sample())
}

/// Sizes in which every set takes part, so that the points of a line compare.
fn whole_sizes(results: &Results, group: Group) -> Vec<usize> {
    let most = results.sizes.iter();
    let most = most.map(|&rows| results.sets_of(group, rows).len()).max();
    let sizes = results.sizes.iter().copied();
    sizes
        .filter(|&rows| Some(results.sets_of(group, rows).len()) == most)
        .collect()
}

fn curves(results: &Results, group: Group) -> Vec<Curve> {
    let sizes = whole_sizes(results, group);
    let mut curves = Vec::new();
    for name in LINES {
        let point =
            |&rows: &usize| Some((rows as f64, mean_of(results, group, rows, name, bytes)?));
        curves.push(Curve {
            name: name.to_owned(),
            class: if name == RICE { "ours thin" } else { "other" },
            points: sizes.iter().filter_map(point).collect(),
        });
    }
    let whole = summaries(results, group);
    let whole = whole.iter().filter(|s| sizes.contains(&s.rows));
    curves.push(Curve {
        name: "best shipped, picked per set".to_owned(),
        class: "best",
        points: whole
            .clone()
            .map(|s| (s.rows as f64, s.best_bytes_per_sample))
            .collect(),
    });
    curves.push(Curve {
        name: "headwater, as the agent sends".to_owned(),
        class: "ours",
        points: whole.map(|s| (s.rows as f64, s.bytes_per_sample)).collect(),
    });
    curves.retain(|curve| !curve.points.is_empty());
    curves
}

fn lines(results: &Results, group: Group) -> String {
    let curves = curves(results, group);
    let sizes = curves.iter().flat_map(|c| &c.points).map(|p| p.0);
    let x = Axis {
        low: 1.0,
        high: sizes.fold(10.0, f64::max),
        start: 44.0,
        end: 300.0,
    };
    let y = Axis {
        low: BYTES.0,
        high: BYTES.1,
        start: BOTTOM,
        end: TOP,
    };
    let sets = results.sets.iter().filter(|set| set.group == group).count();
    let mut svg = headline(
        20.0,
        "Bytes per sample against rows per batch",
        &format!("geometric mean over {sets} sets; ours with frame and checksum"),
    );
    svg += &frame(x, y, true, "rows per batch");
    for curve in &curves {
        let points = curve.points.iter();
        let path: Vec<String> = points
            .map(|&(rows, bytes)| format!("{:.1},{:.1}", x.at(rows), y.at(bytes)))
            .collect();
        let (class, path) = (curve.class, path.join(" "));
        let _ = writeln!(svg, "<polyline class=\"line {class}\" points=\"{path}\"/>");
    }
    let ends: Vec<f64> = curves
        .iter()
        .map(|curve| curve.points.last().map_or(BOTTOM, |p| y.at(p.1)))
        .collect();
    for (curve, at) in curves.iter().zip(spread(&ends)) {
        let last = curve.points.last().map_or(0.0, |point| point.1);
        let class = label_class(curve.class);
        let _ = writeln!(
            svg,
            "<text class=\"label {class}\" x=\"{}\" y=\"{:.1}\">{:.2} {}</text>",
            x.end + 8.0,
            at + 4.0,
            last,
            curve.name,
        );
    }
    svg
}

fn label_class(class: &str) -> String {
    match class {
        "other" => "other".to_owned(),
        "ours thin" => "ours".to_owned(),
        important => format!("{important} bold"),
    }
}

/// Moves labels apart, down and up in turn, as little as makes them readable.
fn spread(wanted: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    order.sort_by(|&a, &b| wanted[a].total_cmp(&wanted[b]));
    let mut placed = wanted.to_vec();
    for _ in 0..200 {
        for pair in order.windows(2) {
            let (above, below) = (pair[0], pair[1]);
            let missing = LINE - (placed[below] - placed[above]);
            if missing > 1e-6 {
                placed[above] -= missing / 2.0;
                placed[below] += missing / 2.0;
            }
        }
    }
    placed
}

/// A label's place: left, top, right, bottom.
type Area = [f64; 4];

fn overlap(a: Area, b: Area) -> bool {
    a[0] < b[2] && b[0] < a[2] && a[1] < b[3] && b[1] < a[3]
}

/// Labels beside their points: the first place around a point where nothing else is.
fn labels(points: &[(f64, f64)], names: &[&str], edge: f64) -> Vec<(f64, f64, Area)> {
    let dot = |&(x, y): &(f64, f64)| [x - 5.0, y - 5.0, x + 5.0, y + 5.0];
    let mut taken: Vec<Area> = points.iter().map(dot).collect();
    let mut placed = Vec::new();
    for (&(x, y), name) in points.iter().zip(names) {
        let width = name.len() as f64 * LETTER;
        let mut places = Vec::new();
        for step in 0..6 {
            let away = f64::from(step) * 7.0;
            places.extend([
                (x + 8.0, y + 4.0 - away),
                (x - 8.0 - width, y + 4.0 - away),
                (x + 8.0, y + 4.0 + away),
                (x - 8.0 - width, y + 4.0 + away),
                (x - width / 2.0, y - 8.0 - away),
                (x - width / 2.0, y + 16.0 + away),
            ]);
        }
        let area = |&(left, base): &(f64, f64)| [left, base - 9.5, left + width, base + 2.5];
        let free = places.iter().find(|place| {
            let area = area(place);
            area[2] <= edge && !taken.iter().any(|other| overlap(area, *other))
        });
        let place = free.copied().unwrap_or(places[0]);
        taken.push(area(&place));
        placed.push((place.0, place.1, area(&place)));
    }
    placed
}

fn points(results: &Results, group: Group) -> String {
    let own = SENT;
    let mut found = Vec::new();
    for name in std::iter::once(own).chain(POINTS) {
        let bytes = mean_of(results, group, CPU_ROWS, name, bytes);
        let ns = mean_of(results, group, CPU_ROWS, name, |cell| cell.encode_ns);
        if let (Some(bytes), Some(ns)) = (bytes, ns) {
            found.push((name, ns, bytes));
        }
    }
    if found.is_empty() {
        return String::new();
    }
    let x = Axis {
        low: found.iter().map(|p| p.1).fold(f64::MAX, f64::min) * 0.8,
        high: found.iter().map(|p| p.1).fold(0.0, f64::max) * 1.25,
        start: 568.0,
        end: WIDTH - 24.0,
    };
    let y = Axis {
        low: BYTES.0,
        high: BYTES.1,
        start: BOTTOM,
        end: TOP,
    };
    let mut svg = headline(
        544.0,
        "Bytes per sample against CPU",
        &format!("{CPU_ROWS} rows per batch; lower left is better"),
    );
    svg += &frame(x, y, false, "CPU to encode, ns per sample");
    let places: Vec<(f64, f64)> = found.iter().map(|p| (x.at(p.1), y.at(p.2))).collect();
    let names: Vec<&str> = found.iter().map(|p| p.0).collect();
    let labels = labels(&places, &names, WIDTH - 4.0);
    for ((name, &(cx, cy)), (left, base, area)) in names.iter().zip(&places).zip(labels) {
        let class = if name.starts_with("headwater") {
            "ours"
        } else {
            "other"
        };
        let bold = if *name == own { " bold" } else { "" };
        // A label that had to go aside is tied to its point.
        let (x2, y2) = (cx.clamp(area[0], area[2]), cy.clamp(area[1], area[3]));
        if (x2 - cx).hypot(y2 - cy) > TIE_FROM {
            let _ = writeln!(
                svg,
                "<line class=\"tie {class}\" x1=\"{cx:.1}\" y1=\"{cy:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>"
            );
        }
        let _ = writeln!(
            svg,
            "<circle class=\"{class}\" cx=\"{cx:.1}\" cy=\"{cy:.1}\" r=\"4\"/>\
             <text class=\"label {class}{bold}\" x=\"{left:.1}\" y=\"{base:.1}\">{name}</text>"
        );
    }
    svg
}

#[cfg(test)]
mod tests {
    use super::super::summary::tests::results;
    use super::*;

    #[test]
    fn labels_at_the_ends_of_lines_keep_their_order_and_do_not_touch() {
        let placed = spread(&[100.0, 101.0, 300.0, 99.0, 305.0]);
        let mut sorted = placed.clone();
        sorted.sort_by(f64::total_cmp);
        assert!(
            sorted
                .windows(2)
                .all(|pair| pair[1] - pair[0] >= LINE - 0.01),
            "{placed:?}"
        );
        assert!(placed[3] < placed[0] && placed[0] < placed[1] && placed[2] < placed[4]);
    }

    #[test]
    fn labels_beside_crowded_points_do_not_cover_each_other() {
        let points = [
            (600.0, 200.0),
            (604.0, 203.0),
            (610.0, 199.0),
            (930.0, 200.0),
        ];
        let names = [
            "postcard + zstd 3",
            "JSON + zstd 3",
            "pco",
            "a long name at the edge",
        ];
        let placed = labels(&points, &names, WIDTH);
        for (at, a) in placed.iter().enumerate() {
            assert!(a.2[2] <= WIDTH);
            for b in &placed[..at] {
                assert!(!overlap(a.2, b.2), "{placed:?}");
            }
        }
    }

    #[test]
    fn the_chart_names_ours_and_the_best_shipped() {
        let results = results(&[
            (SENT, [1_000, 1_000]),
            (POSTCARD, [2_000, 2_000]),
            (JSON, [9_000, 9_000]),
        ]);
        let svg = chart(&results);
        assert!(
            svg.contains(">0.33 headwater, as the agent sends<"),
            "{svg}"
        );
        assert!(svg.contains(">0.67 best shipped, picked per set<"), "{svg}");
        assert_eq!(svg.matches("<text").count(), svg.matches("</text>").count());
    }
}

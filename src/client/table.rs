//! Text tables, and the cells that several of them have.

use serde_json::Value;

/// Characters shown of a worker's id.
const SHORT: usize = 8;

/// The headers and the rows, in columns as wide as their widest cell.
pub(super) fn render(
    headers: &[impl AsRef<str>],
    rows: impl IntoIterator<Item = Vec<String>>,
) -> String {
    render_with(headers, rows, |_, cell, width| format!("{cell:width$}"))
}

/// As `render`, with numbers in all columns but the first, aligned on the right.
pub(super) fn render_numbers(
    headers: &[impl AsRef<str>],
    rows: impl IntoIterator<Item = Vec<String>>,
) -> String {
    render_with(headers, rows, |column, cell, width| match column {
        0 => format!("{cell:width$}"),
        _ => format!("{cell:>width$}"),
    })
}

fn render_with(
    headers: &[impl AsRef<str>],
    rows: impl IntoIterator<Item = Vec<String>>,
    pad: impl Fn(usize, &str, usize) -> String,
) -> String {
    let cells = headers.iter().map(|header| header.as_ref().to_owned());
    let mut lines: Vec<Vec<String>> = vec![cells.collect()];
    lines.extend(rows);
    let mut widths = vec![0; headers.len()];
    for line in &lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = cell.chars().count().max(*width);
        }
    }
    let padded = lines.iter().map(|line| {
        let cells = line.iter().zip(&widths).enumerate();
        let cells: Vec<String> = cells
            .map(|(column, (cell, &width))| pad(column, cell, width))
            .collect();
        cells.join("  ").trim_end().to_owned()
    });
    padded.collect::<Vec<_>>().join("\n")
}

/// A duration in its largest unit.
pub(super) fn duration(seconds: i64) -> String {
    let seconds = seconds.max(0);
    for (unit, length) in [("d", 86_400), ("h", 3_600), ("min", 60)] {
        if seconds >= 2 * length {
            return format!("{} {unit}", seconds / length);
        }
    }
    format!("{seconds} s")
}

/// A worker: its host, and the end of its id, which begins with a time.
pub(super) fn worker(host: &Value, id: &Value) -> String {
    let id = id.as_str().unwrap_or_default();
    let short = id.get(id.len().saturating_sub(SHORT)..).unwrap_or(id);
    format!("{}/{short}", host.as_str().unwrap_or("?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_cells() {
        let rows = vec![
            vec!["a".to_owned(), "long".to_owned()],
            vec!["bbb".to_owned(), "é".to_owned()],
        ];
        assert_eq!(render(&["id", "x"], rows), "id   x\na    long\nbbb  é");
    }

    #[test]
    fn workers_on_one_host_are_distinguished() {
        let id = Value::from("worker_0193a5c0000070008000123456789abc");
        assert_eq!(worker(&Value::from("a"), &id), "a/56789abc");
        // An unknown id must not panic.
        let strange = Value::from("é1234567");
        assert_eq!(worker(&Value::Null, &strange), "?/é1234567");
    }

    #[test]
    fn durations_have_one_unit() {
        let spans = [-1, 5, 119, 120, 7_200, 86_400 * 3].map(duration);
        assert_eq!(spans, ["0 s", "5 s", "119 s", "2 min", "2 h", "3 d"]);
    }
}

//! Rows in columns as wide as their widest cell, and what stands in them.

use serde_json::Value;

/// Characters of a worker's id.
const SHORT: usize = 8;

/// Lines of text: the heads, then the rows.
pub(super) fn render(heads: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = heads.iter().map(|head| head.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: Vec<&str>| {
        let padded: Vec<String> = cells
            .iter()
            .zip(&widths)
            .map(|(cell, &width)| format!("{cell:width$}"))
            .collect();
        padded.join("  ").trim_end().to_owned()
    };
    let mut lines = vec![line(heads.to_vec())];
    lines.extend(
        rows.iter()
            .map(|row| line(row.iter().map(String::as_str).collect())),
    );
    lines.join("\n")
}

/// A stretch of time, as people say it: in its largest unit.
pub(super) fn span(seconds: i64) -> String {
    let seconds = seconds.max(0);
    for (unit, length) in [("d", 86_400), ("h", 3_600), ("min", 60)] {
        if seconds >= 2 * length {
            return format!("{} {unit}", seconds / length);
        }
    }
    format!("{seconds} s")
}

/// A worker, as every table names it: its host, and the end of its id, whose start is a time.
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
        assert_eq!(render(&["id", "x"], &rows), "id   x\na    long\nbbb  é");
    }

    #[test]
    fn workers_on_one_host_are_told_apart() {
        let id = Value::from("worker_0193a5c0000070008000123456789abc");
        assert_eq!(worker(&Value::from("a"), &id), "a/56789abc");
        // No id of ours, but no reason to panic.
        let strange = Value::from("é1234567");
        assert_eq!(worker(&Value::Null, &strange), "?/é1234567");
    }

    #[test]
    fn spans_are_rough() {
        let spans = [-1, 5, 119, 120, 7_200, 86_400 * 3].map(span);
        assert_eq!(spans, ["0 s", "5 s", "119 s", "2 min", "2 h", "3 d"]);
    }
}

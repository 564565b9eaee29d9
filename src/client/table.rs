//! Rows in columns as wide as their widest cell.

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
    fn spans_are_rough() {
        let spans = [-1, 5, 119, 120, 7_200, 86_400 * 3].map(span);
        assert_eq!(spans, ["0 s", "5 s", "119 s", "2 min", "2 h", "3 d"]);
    }
}

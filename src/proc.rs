//! Files of the kernel that have a name and a number on each line: of `/proc`, and of control
//! groups. Source: proc(5).

/// The first number behind `name` at the beginning of a line.
pub fn field(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_proc_are_read() {
        let limits =
            "Limit   Soft Limit   Hard Limit\nMax open files            1024   524288   files\n";
        assert_eq!(field(limits, "Max open files"), Some(1024));
        assert_eq!(field("btime 17\n", "btime"), Some(17));
        assert_eq!(field("MemFree: 1 kB", "MemAvailable:"), None);
        let events = "oom 2\noom_kill 1\n";
        assert_eq!(field(events, "oom_kill "), Some(1));
        assert_eq!(
            field("Max open files   unlimited\n", "Max open files"),
            None
        );
    }
}

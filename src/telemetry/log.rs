//! The log on standard error: standard output is for a command's result. Each record is one line,
//! whatever a user's text in it contains.

use std::{
    borrow::Cow,
    io::{self, IsTerminal as _, Write},
};

use tracing_subscriber::{
    EnvFilter, Layer as _, fmt::MakeWriter, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

use crate::config::LogArgs;

/// The log of this process, and its traces. Those that wait are sent when it is dropped.
#[must_use]
#[derive(Debug, Default)]
pub struct Log {
    #[cfg(feature = "otel")]
    traces: Option<opentelemetry_sdk::trace::SdkTracerProvider>,
}

#[cfg(feature = "otel")]
impl Drop for Log {
    fn drop(&mut self) {
        if let Some(traces) = &self.traces {
            // Fails where the collector is away.
            let _ = traces.shutdown();
        }
    }
}

/// Starts the log, once per process.
///
/// # Errors
/// The address of the collector is no URL.
pub fn start(args: &LogArgs) -> anyhow::Result<Log> {
    let filter = EnvFilter::try_new(&args.log).unwrap_or_else(|_| EnvFilter::new("info"));
    let ansi = io::stderr().is_terminal();
    let lines = tracing_subscriber::fmt::layer();
    let lines = if args.log_json {
        let lines = lines.json().with_writer(OneLine::new(io::stderr, false));
        lines.with_filter(filter).boxed()
    } else {
        let lines = lines.with_target(false).with_ansi(ansi);
        let lines = lines.with_writer(OneLine::new(io::stderr, ansi));
        lines.with_filter(filter).boxed()
    };
    let registry = tracing_subscriber::registry().with(lines);
    #[cfg(feature = "otel")]
    if let Some(endpoint) = &args.otlp_endpoint {
        let (layer, provider) = super::traces::layer(endpoint)?;
        registry.with(layer).init();
        return Ok(Log {
            traces: Some(provider),
        });
    }
    registry.init();
    Ok(Log::default())
}

/// Writes each record as one line: control characters inside are escaped, as JSON does it.
struct OneLine<M> {
    target: M,
    /// Keeps the escape character, by which the formatter makes colors. It escapes those of users.
    colors: bool,
}

impl<M> OneLine<M> {
    fn new(target: M, colors: bool) -> Self {
        Self { target, colors }
    }
}

impl<'a, M: MakeWriter<'a>> MakeWriter<'a> for OneLine<M> {
    type Writer = Line<M::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        Line {
            target: self.target.make_writer(),
            colors: self.colors,
        }
    }
}

/// The writer of one record, which the formatter writes at once.
struct Line<W> {
    target: W,
    colors: bool,
}

impl<W: Write> Write for Line<W> {
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(record);
        self.target
            .write_all(one_line(&text, self.colors).as_bytes())?;
        Ok(record.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.target.flush()
    }
}

fn one_line(record: &str, colors: bool) -> Cow<'_, str> {
    let breaks = |c: char| {
        let is_color = c == '\x1b' && colors;
        (c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')) && c != '\t' && !is_color
    };
    let (body, end) = match record.strip_suffix('\n') {
        Some(body) => (body, "\n"),
        None => (record, ""),
    };
    if !body.contains(breaks) {
        return record.into();
    }
    let mut line = String::with_capacity(record.len() + 16);
    for c in body.chars() {
        match c {
            '\n' => line.push_str("\\n"),
            '\r' => line.push_str("\\r"),
            c if breaks(c) => line.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => line.push(c),
        }
    }
    (line + end).into()
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Names that forge a record, retitle the terminal, end a JSON string, break a line.
    const NAMES: [&str; 4] = [
        "a\r\n2026-01-01T00:00:00Z ERROR forged",
        "\x1b]0;title\x07\u{9b}31m",
        "{\"level\":\"ERROR\"}\",\"x\":\"",
        "a\u{2028}b\u{85}c",
    ];

    #[test]
    fn a_users_text_stays_in_its_record() {
        for json in [false, true] {
            for name in NAMES {
                let written = Written::default();
                let target = written.clone();
                let lines = tracing_subscriber::fmt::layer().with_ansi(false);
                let target = OneLine::new(move || target.clone(), false);
                let log = || tracing::warn!(name, "cannot read `{name}`");
                if json {
                    let layer = lines.json().with_writer(target);
                    tracing::subscriber::with_default(
                        tracing_subscriber::registry().with(layer),
                        log,
                    );
                } else {
                    let layer = lines.with_writer(target);
                    tracing::subscriber::with_default(
                        tracing_subscriber::registry().with(layer),
                        log,
                    );
                }
                let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
                assert_eq!(text.lines().count(), 1, "{text}");
                assert!(
                    !text.trim_end_matches('\n').contains(char::is_control),
                    "{text:?}"
                );
                if json {
                    let record: serde_json::Value = serde_json::from_str(&text).unwrap();
                    assert_eq!(record["fields"]["name"], name, "{text}");
                }
            }
        }
    }

    #[test]
    fn colors_of_the_formatter_are_kept() {
        assert_eq!(
            one_line("\x1b[31mred\x1b[0m\n", true),
            "\x1b[31mred\x1b[0m\n"
        );
        assert_eq!(one_line("\x1b[31m\n", false), "\\u001b[31m\n");
        assert_eq!(one_line("a\tb\n", false), "a\tb\n");
    }
}

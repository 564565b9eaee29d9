//! Lists of hosts that an operator allows, such as `example.org,*.example.org:8443`. `*` is every
//! host. Without a port an entry stands for that of the scheme, with `:*` for every port.

use std::{fmt, net::Ipv6Addr, str::FromStr};

/// The word for a list without entries.
const NONE: &str = "none";

/// Hosts with their ports.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostList(Vec<Entry>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    host: Pattern,
    port: Port,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Pattern {
    Every,
    Exact(String),
    /// Every host with this suffix, which starts with a dot.
    Below(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Port {
    OfScheme,
    Every,
    One(u16),
}

impl HostList {
    /// True when the list allows no host.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// True when an entry names this host as a parsed URL has it: in lower case, IPv6 in brackets.
    pub fn allows(&self, host: &str, port: u16, port_of_scheme: u16) -> bool {
        let host = host.strip_suffix('.').unwrap_or(host);
        self.0.iter().any(|entry| {
            let named = match &entry.host {
                Pattern::Every => true,
                Pattern::Exact(name) => host == name,
                Pattern::Below(suffix) => host.len() > suffix.len() && host.ends_with(suffix),
            };
            let open = match entry.port {
                Port::OfScheme => port == port_of_scheme,
                Port::Every => true,
                Port::One(one) => port == one,
            };
            named && open
        })
    }
}

impl FromStr for HostList {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == NONE {
            return Ok(Self::default());
        }
        text.split(',')
            .map(|entry| parse_entry(entry.trim()))
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

fn parse_entry(text: &str) -> Result<Entry, String> {
    let wrong = || {
        format!(
            "`{text}` is not a host; give a list such as `example.org,*.example.org:8443`, `*` for every host, or `none`"
        )
    };
    let (host, port) = match text.rsplit_once(':') {
        // The colons of an address without brackets are not those of a port.
        Some((host, _)) if host.contains(':') && !host.ends_with(']') => return Err(wrong()),
        Some((host, _)) if host.starts_with('[') && !host.ends_with(']') => (text, Port::OfScheme),
        Some((host, "*")) => (host, Port::Every),
        Some((host, port)) => (host, Port::One(port.parse().map_err(|_| wrong())?)),
        None => (text, Port::OfScheme),
    };
    let host = parse_pattern(&host.to_ascii_lowercase()).ok_or_else(wrong)?;
    Ok(Entry { host, port })
}

fn parse_pattern(host: &str) -> Option<Pattern> {
    if host == "*" {
        return Some(Pattern::Every);
    }
    if let Some(address) = host.strip_prefix('[') {
        let address: Ipv6Addr = address.strip_suffix(']')?.parse().ok()?;
        return Some(Pattern::Exact(format!("[{address}]")));
    }
    let (name, is_suffix) = match host.strip_prefix("*.") {
        Some(name) => (name, true),
        None => (host, false),
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let is_label = |label: &str| !label.is_empty() && label.bytes().all(plain);
    if !name.split('.').all(is_label) {
        return None;
    }
    Some(if is_suffix {
        Pattern::Below(format!(".{name}"))
    } else {
        Pattern::Exact(name.to_owned())
    })
}

impl fmt::Display for HostList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str(NONE);
        }
        for (index, Entry { host, port }) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            match host {
                Pattern::Every => f.write_str("*")?,
                Pattern::Exact(name) => f.write_str(name)?,
                Pattern::Below(suffix) => write!(f, "*{suffix}")?,
            }
            match port {
                Port::OfScheme => {}
                Port::Every => f.write_str(":*")?,
                Port::One(port) => write!(f, ":{port}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_exact_or_below_a_suffix() {
        let list: HostList = "Example.org, *.cdn.example.org:8443,10.0.0.5:*,[::1]:80"
            .parse()
            .unwrap();
        for (host, port, allowed) in [
            ("example.org", 443, true),
            ("example.org.", 443, true),
            ("example.org", 444, false),
            ("www.example.org", 443, false),
            ("notexample.org", 443, false),
            ("a.cdn.example.org", 8443, true),
            ("a.b.cdn.example.org", 8443, true),
            ("a.cdn.example.org", 443, false),
            ("cdn.example.org", 8443, false),
            ("evilcdn.example.org", 8443, false),
            ("10.0.0.5", 1, true),
            ("10.0.0.50", 1, false),
            ("[::1]", 80, true),
            ("[::1]", 443, false),
        ] {
            assert_eq!(list.allows(host, port, 443), allowed, "{host}:{port}");
        }
    }

    #[test]
    fn a_list_is_written_as_it_is_read() {
        for text in ["none", "*", "*:*", "example.org,*.example.org:1,[::1]:*"] {
            assert_eq!(text.parse::<HostList>().unwrap().to_string(), text);
        }
        assert!("none".parse::<HostList>().unwrap().is_empty());
        for wrong in [
            "",
            "a,,b",
            "http://a",
            "a/b",
            "a:65536",
            "a:",
            "::1",
            "[::1",
            "*a",
            "a.*.b",
            "a..b",
            "ü.example",
        ] {
            assert!(wrong.parse::<HostList>().is_err(), "{wrong}");
        }
    }
}

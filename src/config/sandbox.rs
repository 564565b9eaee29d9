//! Settings of the sandbox of child processes.

use std::{fmt, str::FromStr};

use clap::Args;

/// A layer of the sandbox of child processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SandboxLayer {
    /// Which files a process reaches.
    Landlock,
    /// Which system calls it makes.
    Seccomp,
    /// A user of its own, if root starts it.
    User,
}

impl SandboxLayer {
    pub const ALL: [Self; 3] = [Self::Landlock, Self::Seccomp, Self::User];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Landlock => "landlock",
            Self::Seccomp => "seccomp",
            Self::User => "user",
        }
    }
}

/// The layers of the sandbox that are asked for: `on`, `off`, or a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxLayers(Vec<SandboxLayer>);

impl SandboxLayers {
    pub fn has(&self, layer: SandboxLayer) -> bool {
        self.0.contains(&layer)
    }
}

impl Default for SandboxLayers {
    fn default() -> Self {
        Self(SandboxLayer::ALL.to_vec())
    }
}

impl FromStr for SandboxLayers {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let layer = |name: &str| {
            let found = SandboxLayer::ALL
                .into_iter()
                .find(|layer| layer.as_str() == name.trim());
            found.ok_or_else(|| {
                format!("`{name}` is not a layer; give `on`, `off`, or a list of `landlock`, `seccomp` and `user`")
            })
        };
        match text {
            "on" => Ok(Self::default()),
            "off" => Ok(Self(Vec::new())),
            list => list
                .split(',')
                .map(layer)
                .collect::<Result<_, _>>()
                .map(Self),
        }
    }
}

impl fmt::Display for SandboxLayers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let on = *self == Self::default();
        let names: Vec<_> = self.0.iter().map(|layer| layer.as_str()).collect();
        f.write_str(&match &names[..] {
            _ if on => "on".to_owned(),
            [] => "off".to_owned(),
            names => names.join(","),
        })
    }
}

/// The sandbox of child processes, which read what users upload.
#[derive(Debug, Clone, Args)]
pub struct SandboxArgs {
    /// Layers of the sandbox of child processes: `on` (all that this machine has), `off`, or a list
    /// of `landlock`, `seccomp` and `user`
    #[arg(long, env = "REHEAD_SANDBOX", default_value_t = SandboxLayers::default())]
    pub sandbox: SandboxLayers,
    /// Refuse to start when a layer of the sandbox is missing
    #[arg(long, env = "REHEAD_REQUIRE_SANDBOX")]
    pub require_sandbox: bool,
    /// First of 257 user and group ids that no account has, for child processes that root starts
    #[arg(long, env = "REHEAD_SANDBOX_UID", default_value_t = 60_800, value_parser = clap::value_parser!(u32).range(1..=4_000_000_000))]
    pub sandbox_uid: u32,
    /// Maximum memory of a child process (bytes), by default nine tenths of what the service has.
    /// Held by a control group, where the service may make one: with this option, it has to
    #[arg(long, env = "REHEAD_SANDBOX_MEMORY_BYTES", value_parser = clap::value_parser!(u64).range((64 << 20)..))]
    pub sandbox_memory_bytes: Option<u64>,
    /// Maximum number of threads of a child process that has a user or a control group of its own
    #[arg(long, env = "REHEAD_SANDBOX_THREADS", default_value_t = 4_096, value_parser = clap::value_parser!(u64).range(16..))]
    pub sandbox_threads: u64,
    /// Maximum size of a file that a child process writes (bytes)
    #[arg(long, env = "REHEAD_SANDBOX_FILE_BYTES", default_value_t = 256 << 30, value_parser = clap::value_parser!(u64).range((1 << 20)..))]
    pub sandbox_file_bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sandbox_is_on_or_off_or_a_list() {
        let layers = |text: &str| text.parse::<SandboxLayers>();
        for text in ["on", "off", "seccomp,user"] {
            assert_eq!(layers(text).unwrap().to_string(), text);
        }
        assert!(layers("landlock, user").unwrap().has(SandboxLayer::User));
        let refused = layers("yes").unwrap_err();
        assert!(
            refused.contains("`yes` is not a layer; give `on`"),
            "{refused}"
        );
    }
}

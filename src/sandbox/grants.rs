//! Rights of one child, by its role.

/// The rights of a child beyond reading its home and its libraries.
#[derive(Debug, Clone, Copy)]
pub struct Grants {
    /// It may write to `work` in its home.
    pub writes: bool,
    /// It may use GPUs.
    pub gpus: bool,
}

impl Grants {
    /// Reads only, on the CPU.
    pub const READ: Self = Self {
        writes: false,
        gpus: false,
    };
    /// Writes to its work folder, on the CPU.
    pub const WRITE: Self = Self {
        writes: true,
        gpus: false,
    };

    /// With the GPUs, unless `device` is `cpu`.
    #[must_use]
    pub fn on(self, device: &str) -> Self {
        Self {
            gpus: device != "cpu",
            ..self
        }
    }
}

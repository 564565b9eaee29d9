//! Roles of API keys.

use crate::words;

words! {
    /// The rights of a key.
    pub enum Role {
        /// Reads and writes the rows of its tenant.
        User = "user",
        /// Also manages keys, lists workers, reads metrics, and sees the hosts and logs of its
        /// tenant's attempts.
        Admin = "admin",
    }
}

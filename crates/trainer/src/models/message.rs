//! Texts of errors that C++ writes (`message.h`).

use std::ffi::{CStr, c_char};

/// Room for a text, in bytes.
pub(crate) const BYTES: usize = 4_096;

/// An error of C++ as text.
#[derive(Debug)]
pub(crate) struct Message([c_char; BYTES]);

impl Default for Message {
    fn default() -> Self {
        Self([0; BYTES])
    }
}

impl Message {
    pub(crate) fn as_mut_ptr(&mut self) -> *mut c_char {
        self.0.as_mut_ptr()
    }

    pub(crate) fn text(&self) -> String {
        let bytes = self.0.map(c_char::cast_unsigned);
        let text = CStr::from_bytes_until_nul(&bytes).unwrap_or_default();
        text.to_string_lossy().into_owned()
    }
}

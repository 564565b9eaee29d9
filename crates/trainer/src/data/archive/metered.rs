//! A reader with an allowance.

use std::{
    cell::Cell,
    io::{self, Read, Seek, SeekFrom},
    rc::Rc,
};

/// A reader that fails with `FileTooLarge` once its allowance is used up.
#[derive(Debug)]
pub(crate) struct Metered<R> {
    inner: R,
    left: Rc<Cell<u64>>,
}

impl<R> Metered<R> {
    /// The reader, and its allowance in bytes, which may be changed at any time.
    pub(super) fn new(inner: R, bytes: u64) -> (Self, Rc<Cell<u64>>) {
        let left = Rc::new(Cell::new(bytes));
        let metered = Self {
            inner,
            left: Rc::clone(&left),
        };
        (metered, left)
    }
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.left.get()).unwrap_or(usize::MAX);
        if left == 0 && !buffer.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                "more is to be read than is allowed",
            ));
        }
        let wanted = buffer.len().min(left);
        let count = self.inner.read(&mut buffer[..wanted])?;
        self.left.set(self.left.get() - count as u64);
        Ok(count)
    }
}

impl<R: Seek> Seek for Metered<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.inner.seek(to)
    }

    fn stream_position(&mut self) -> io::Result<u64> {
        self.inner.stream_position()
    }
}

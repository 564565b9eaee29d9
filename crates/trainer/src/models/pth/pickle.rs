//! A pickle machine that can only describe tensors. It knows the opcodes that torch writes and a
//! few callables, and runs none of them: what torch would call becomes a description here, and what
//! training scripts save beside the weights (their arguments, NumPy's numbers) one value that says
//! nothing. Any other name is an error that says it, so that a hostile pickle ends as a sentence.
//! See Python's `pickletools` for the opcodes.
//!
//! Values are small and live in flat lists, so that no input nests deep enough to exhaust the
//! stack, and no input can use more memory than a constant times its own length.

use std::collections::HashMap;

use tch::Kind;

use crate::models::weights::{DIMENSIONS, TENSORS, TYPES, WeightsError};

/// Bytes of one pickle; the structure only, for the numbers lie outside. ResNet-50's has 0.04 MB.
pub(super) const PICKLE_BYTES: usize = 4 << 20;
/// Arguments of one call; torch's longest has seven.
const ARGUMENTS: usize = 8;
/// Tensors described, each perhaps twice.
const VIEWS: usize = 2 * TENSORS;

/// A pickled value. Containers and texts are indices into the machine's lists.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Value {
    None,
    Bool(bool),
    Int(i64),
    Float,
    Text(usize),
    Tuple(usize),
    List(usize),
    /// Keys and values in turn.
    Dict(usize),
    Callable(Callable),
    Storage(usize),
    Tensor(usize),
    /// Known to be harmless, never built, and of no use here.
    Opaque,
}

/// The names that a pickle may mention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Callable {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    StorageType(Kind),
    /// One of `OPAQUE`.
    Opaque,
}

/// Types that training scripts save beside the weights, by module. None of them is called.
const OPAQUE: [(&str, &[&str]); 10] = [
    ("argparse", &["Namespace"]),
    ("collections", &["defaultdict", "Counter"]),
    (
        "numpy",
        &["dtype", "ndarray", "float64", "float32", "int64"],
    ),
    ("numpy.core.multiarray", &["scalar", "_reconstruct"]),
    ("numpy._core.multiarray", &["scalar", "_reconstruct"]),
    ("torch", &["device", "Size"]),
    ("pathlib", &["PosixPath", "WindowsPath", "PurePosixPath"]),
    (
        "builtins",
        &["set", "dict", "list", "int", "float", "str", "slice"],
    ),
    (
        "__builtin__",
        &["set", "dict", "list", "int", "float", "str", "unicode"],
    ),
    ("_codecs", &["encode"]),
];

/// Where a tensor's numbers lie: an entry of the archive.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Storage {
    pub key: String,
    pub kind: Kind,
    /// Numbers, not bytes.
    pub count: u64,
}

/// A view into a storage, as `torch._utils._rebuild_tensor_v2` takes it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct View {
    pub storage: usize,
    pub offset: i64,
    pub size: Vec<i64>,
    pub stride: Vec<i64>,
}

/// A pickle that has run: its value, and what that refers to.
#[derive(Debug, Default)]
pub(super) struct Machine {
    stack: Vec<Value>,
    marks: Vec<usize>,
    memo: HashMap<u32, Value>,
    texts: Vec<String>,
    containers: Vec<Vec<Value>>,
    /// Values copied from one container to another, the only thing that could multiply.
    copied: usize,
    pub storages: Vec<Storage>,
    /// Indices into `storages`, by key.
    storage_places: HashMap<String, usize>,
    pub views: Vec<View>,
}

type Result<T> = std::result::Result<T, WeightsError>;

fn broken(what: &str) -> WeightsError {
    WeightsError::format(format!(
        "the pickle in this file is not one that torch wrote: {what}"
    ))
}

/// The bytes of a pickle, taken from the front.
struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self
            .rest
            .split_at_checked(count)
            .ok_or_else(|| broken("it ends too early"))?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let taken = self.take(N)?;
        Ok(taken.try_into().expect("N bytes were taken: this is a bug"))
    }

    fn byte(&mut self) -> Result<u8> {
        Ok(self.array::<1>()?[0])
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn text(&mut self, count: usize) -> Result<String> {
        let bytes = self.take(count)?;
        String::from_utf8(bytes.to_owned()).map_err(|_| broken("a text is not UTF-8"))
    }

    fn line(&mut self) -> Result<String> {
        let end = self.rest.iter().take(256).position(|&byte| byte == b'\n');
        let line = self.text(end.ok_or_else(|| broken("a name does not end"))?)?;
        self.take(1)?;
        Ok(line)
    }
}

/// Runs the pickle at the start of `bytes`. Returns its value, the machine that owns what it refers
/// to, and how many bytes it took.
pub(super) fn run(bytes: &[u8]) -> Result<(Value, Machine, usize)> {
    let window = &bytes[..bytes.len().min(PICKLE_BYTES)];
    let mut reader = Reader { rest: window };
    let mut machine = Machine::default();
    loop {
        let opcode = reader.byte().map_err(|error| match window.len() {
            PICKLE_BYTES => {
                WeightsError::too_large(format!("a pickle is longer than {PICKLE_BYTES} bytes"))
            }
            _ => error,
        })?;
        if opcode == b'.' {
            let value = machine.pop()?;
            return Ok((value, machine, window.len() - reader.rest.len()));
        }
        machine.step(opcode, &mut reader)?;
    }
}

impl Machine {
    fn step(&mut self, opcode: u8, reader: &mut Reader) -> Result<()> {
        match opcode {
            // PROTO, FRAME
            0x80 if (2..=5).contains(&reader.byte()?) => {}
            0x95 => drop(reader.array::<8>()?),
            b'N' => self.push(Value::None),
            0x88 => self.push(Value::Bool(true)),
            0x89 => self.push(Value::Bool(false)),
            b'K' => self.push(Value::Int(reader.byte()?.into())),
            b'M' => self.push(Value::Int(u16::from_le_bytes(reader.array()?).into())),
            b'J' => self.push(Value::Int(i32::from_le_bytes(reader.array()?).into())),
            0x8a => self.long(reader)?,
            // A number such as an epoch's loss: skipped, for nothing here needs it.
            b'G' => {
                reader.array::<8>()?;
                self.push(Value::Float);
            }
            b'X' => {
                let length = reader.u32()? as usize;
                self.push_text(reader.text(length)?);
            }
            0x8c | b'U' => {
                let length = reader.byte()?.into();
                // Python 2 has bytes in its texts, such as NumPy's numbers.
                match String::from_utf8(reader.take(length)?.to_vec()) {
                    Ok(text) => self.push_text(text),
                    Err(_) if opcode == b'U' => self.push(Value::Opaque),
                    Err(_) => return Err(broken("a text is not UTF-8")),
                }
            }
            // SHORT_BINBYTES, BINBYTES
            b'C' => {
                let length = reader.byte()?.into();
                reader.take(length)?;
                self.push(Value::Opaque);
            }
            b'B' => {
                let length = reader.u32()? as usize;
                reader.take(length)?;
                self.push(Value::Opaque);
            }
            other => return self.combine(other, reader),
        }
        Ok(())
    }

    /// Opcodes that work on what is on the stack, or in the memo.
    fn combine(&mut self, opcode: u8, reader: &mut Reader) -> Result<()> {
        match opcode {
            b'(' => self.marks.push(self.stack.len()),
            b')' => self.push_container(Value::Tuple, Vec::new()),
            b't' => {
                let items = self.pop_mark()?;
                self.push_container(Value::Tuple, items);
            }
            0x85..=0x87 => {
                let mut items = (0x84..opcode)
                    .map(|_| self.pop())
                    .collect::<Result<Vec<_>>>()?;
                items.reverse();
                self.push_container(Value::Tuple, items);
            }
            b']' => self.push_container(Value::List, Vec::new()),
            b'}' => self.push_container(Value::Dict, Vec::new()),
            b'a' | b's' | b'e' | b'u' => self.fill(opcode)?,
            b'q' => self.put(reader.byte()?.into())?,
            b'r' => self.put(reader.u32()?)?,
            // MEMOIZE
            0x94 => self.put(self.memo.len() as u32)?,
            b'h' => self.get(reader.byte()?.into())?,
            b'j' => self.get(reader.u32()?)?,
            b'c' => {
                let (module, name) = (reader.line()?, reader.line()?);
                self.push(Value::Callable(callable(&module, &name)?));
            }
            // STACK_GLOBAL
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let found = callable(self.text(module)?, self.text(name)?)?;
                self.push(Value::Callable(found));
            }
            b'Q' => self.persistent()?,
            b'R' => self.reduce()?,
            // NEWOBJ
            0x81 => match (self.pop()?, self.pop()?) {
                (Value::Tuple(_), Value::Callable(Callable::Opaque)) => self.push(Value::Opaque),
                _ => return Err(broken("it makes an object of an unknown type")),
            },
            // EMPTY_SET; ADDITEMS; FROZENSET
            0x8f => self.push(Value::Opaque),
            0x90 => {
                self.pop_mark()?;
                if self.stack.last() != Some(&Value::Opaque) {
                    return Err(broken("items are added to what is no set"));
                }
            }
            0x91 => {
                self.pop_mark()?;
                self.push(Value::Opaque);
            }
            b'b' => self.build()?,
            other => {
                return Err(broken(&format!(
                    "opcode {other:#04x} makes more than tensors"
                )));
            }
        }
        Ok(())
    }

    fn push(&mut self, value: Value) {
        self.stack.push(value);
    }

    fn push_text(&mut self, text: String) {
        self.texts.push(text);
        self.push(Value::Text(self.texts.len() - 1));
    }

    /// Pushes a tuple, list or dictionary.
    fn push_container(&mut self, kind: fn(usize) -> Value, items: Vec<Value>) {
        self.containers.push(items);
        self.push(kind(self.containers.len() - 1));
    }

    fn pop(&mut self) -> Result<Value> {
        // Values below an open mark belong to the mark.
        let floor = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() <= floor {
            return Err(broken("its stack runs empty"));
        }
        self.stack
            .pop()
            .ok_or_else(|| broken("its stack runs empty"))
    }

    fn pop_mark(&mut self) -> Result<Vec<Value>> {
        let mark = self
            .marks
            .pop()
            .ok_or_else(|| broken("a mark is missing"))?;
        Ok(self.stack.split_off(mark))
    }

    fn put(&mut self, place: u32) -> Result<()> {
        let top = *self
            .stack
            .last()
            .ok_or_else(|| broken("its stack runs empty"))?;
        self.memo.insert(place, top);
        Ok(())
    }

    fn get(&mut self, place: u32) -> Result<()> {
        let value = *self
            .memo
            .get(&place)
            .ok_or_else(|| broken("it reads what it never stored"))?;
        self.push(value);
        Ok(())
    }

    /// LONG1: a little-endian number of any length; lengths past eight bytes are of no use here.
    fn long(&mut self, reader: &mut Reader) -> Result<()> {
        let length = usize::from(reader.byte()?);
        let bytes = reader.take(length)?;
        let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
        let mut wide = [if negative { 0xff } else { 0 }; 8];
        wide.get_mut(..length)
            .ok_or_else(|| broken("a number has more than 64 bits"))?
            .copy_from_slice(bytes);
        self.push(Value::Int(i64::from_le_bytes(wide)));
        Ok(())
    }

    /// APPEND, SETITEM, APPENDS, SETITEMS.
    fn fill(&mut self, opcode: u8) -> Result<()> {
        let items = match opcode {
            b'a' => vec![self.pop()?],
            b's' => {
                let value = self.pop()?;
                vec![self.pop()?, value]
            }
            _ => self.pop_mark()?,
        };
        let pairs = matches!(opcode, b's' | b'u');
        match self.stack.last() {
            Some(Value::List(place)) if !pairs => self.containers[*place].extend(items),
            Some(Value::Dict(place)) if pairs && items.len() % 2 == 0 => {
                self.containers[*place].extend(items)
            }
            Some(Value::Opaque) => {}
            _ => return Err(broken("items are added to what is no container")),
        }
        Ok(())
    }

    /// BINPERSID: `("storage", type, key, device, count)`, with a sixth item `None` in the format
    /// before torch 1.6.
    fn persistent(&mut self) -> Result<()> {
        let Value::Tuple(place) = self.pop()? else {
            return Err(broken("a storage is no tuple"));
        };
        let (kind, key, count) = match self.containers[place][..] {
            [
                tag,
                Value::Callable(Callable::StorageType(kind)),
                key,
                _,
                Value::Int(count),
                ref rest @ ..,
            ] if matches!(rest, [] | [Value::None]) && self.text(tag)? == "storage" => {
                (kind, key, count)
            }
            _ => return Err(broken("a storage is described in an unknown way")),
        };
        let count = u64::try_from(count).map_err(|_| broken("a storage has a negative length"))?;
        let storage = Storage {
            key: self.text(key)?.to_owned(),
            kind,
            count,
        };
        let known = self.storage_places.get(&storage.key).copied();
        let place = match known {
            Some(place) if self.storages[place] == storage => place,
            Some(_) => return Err(broken("one storage is described in two ways")),
            None if self.storages.len() >= TENSORS => {
                return Err(WeightsError::too_large(format!(
                    "a pickle describes more than {TENSORS} storages"
                )));
            }
            None => {
                let place = self.storages.len();
                self.storage_places.insert(storage.key.clone(), place);
                self.storages.push(storage);
                place
            }
        };
        self.push(Value::Storage(place));
        Ok(())
    }

    /// REDUCE: what Python would call becomes a description.
    fn reduce(&mut self) -> Result<()> {
        let (Value::Tuple(place), Value::Callable(function)) = (self.pop()?, self.pop()?) else {
            return Err(broken("something that is not callable is called"));
        };
        if self.containers[place].len() > ARGUMENTS {
            return Err(broken("a call has too many arguments"));
        }
        let arguments = self.containers[place].clone();
        match (function, &arguments[..]) {
            (Callable::OrderedDict, []) => self.push_container(Value::Dict, Vec::new()),
            (Callable::OrderedDict, [Value::List(pairs)]) => {
                let items = self.pairs_of(*pairs)?;
                self.push_container(Value::Dict, items);
            }
            (
                Callable::RebuildTensor,
                [
                    Value::Storage(storage),
                    Value::Int(offset),
                    size,
                    stride,
                    ..,
                ],
            ) => {
                if self.views.len() >= VIEWS {
                    return Err(WeightsError::too_large(format!(
                        "a pickle describes more than {VIEWS} tensors"
                    )));
                }
                let view = View {
                    storage: *storage,
                    offset: *offset,
                    size: self.ints(*size)?,
                    stride: self.ints(*stride)?,
                };
                self.views.push(view);
                self.push(Value::Tensor(self.views.len() - 1));
            }
            (Callable::RebuildParameter, [tensor @ Value::Tensor(_), ..]) => self.push(*tensor),
            (Callable::Opaque, _) => self.push(Value::Opaque),
            _ => return Err(broken("a tensor is described in an unknown way")),
        }
        Ok(())
    }

    /// The keys and values in turn of a list of pairs, as Python 2 writes an ordered dictionary.
    fn pairs_of(&mut self, list: usize) -> Result<Vec<Value>> {
        let pairs = &self.containers[list];
        self.copied += 2 * pairs.len();
        if self.copied > PICKLE_BYTES {
            return Err(broken("its dictionaries repeat themselves"));
        }
        let mut items = Vec::with_capacity(2 * pairs.len());
        for pair in pairs {
            match pair {
                // Python 2 writes pairs as lists.
                Value::Tuple(pair) | Value::List(pair) if self.containers[*pair].len() == 2 => {
                    items.extend(&self.containers[*pair]);
                }
                _ => return Err(broken("a dictionary's item is no pair")),
            }
        }
        Ok(items)
    }

    /// BUILD: attributes of a state dict (its `_metadata`), which say nothing about the numbers.
    fn build(&mut self) -> Result<()> {
        let _attributes = self.pop()?;
        match self.stack.last() {
            Some(Value::Dict(_) | Value::Opaque) => Ok(()),
            _ => Err(broken("attributes are set on what is no state dict")),
        }
    }

    fn ints(&self, value: Value) -> Result<Vec<i64>> {
        let Value::Tuple(place) = value else {
            return Err(broken("a shape is no tuple"));
        };
        let items = &self.containers[place];
        if items.len() > DIMENSIONS {
            return Err(WeightsError::too_large(format!(
                "a tensor has more than {DIMENSIONS} dimensions"
            )));
        }
        let int = |value: &Value| match value {
            Value::Int(number) => Ok(*number),
            _ => Err(broken("a shape holds what is no whole number")),
        };
        items.iter().map(int).collect()
    }

    /// The text behind a value.
    pub(super) fn text(&self, value: Value) -> Result<&str> {
        match value {
            Value::Text(place) => Ok(&self.texts[place]),
            _ => Err(broken("a name is no text")),
        }
    }

    /// The pairs of a dictionary.
    pub(super) fn pairs(&self, value: Value) -> Option<impl Iterator<Item = (Value, Value)> + '_> {
        let Value::Dict(place) = value else {
            return None;
        };
        let (pairs, _) = self.containers[place].as_chunks::<2>();
        Some(pairs.iter().map(|&[key, value]| (key, value)))
    }

    /// The value of a text key.
    pub(super) fn lookup(&self, value: Value, key: &str) -> Option<Value> {
        self.pairs(value)?
            .find(|(name, _)| self.text(*name).is_ok_and(|name| name == key))
            .map(|(_, found)| found)
    }

    /// The items of a list.
    pub(super) fn items(&self, value: Value) -> Option<&[Value]> {
        match value {
            Value::List(place) => Some(&self.containers[place]),
            _ => None,
        }
    }
}

/// The allow-list.
fn callable(module: &str, name: &str) -> Result<Callable> {
    let found = match (module, name) {
        ("collections", "OrderedDict") => Some(Callable::OrderedDict),
        // The first is of torch before 0.4, with four arguments.
        ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => Some(Callable::RebuildTensor),
        ("torch._utils", "_rebuild_parameter") => Some(Callable::RebuildParameter),
        ("torch", storage) => TYPES
            .iter()
            .find(|(.., name)| *name == storage)
            .map(|(kind, ..)| Callable::StorageType(*kind)),
        _ => None,
    };
    let is_opaque = |(of, names): &(&str, &[&str])| *of == module && names.contains(&name);
    let found = found.or_else(|| OPAQUE.iter().any(is_opaque).then_some(Callable::Opaque));
    found.ok_or_else(|| {
        let shown = |text: &str| text.chars().take(80).collect::<String>();
        WeightsError::format(format!(
            "this pickle asks Python for `{}.{}`; only files that hold nothing but tensors are read, and nothing in them \
             is run: save `model.state_dict()`, or use safetensors",
            shown(module).escape_debug(),
            shown(name).escape_debug()
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_pickle_is_an_error_that_names_what_it_asks_for() {
        for (pickle, name) in [
            (
                &b"\x80\x02cposix\nsystem\nX\x04\x00\x00\x00true\x85R."[..],
                "posix.system",
            ),
            (
                b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x04true\x85R.",
                "posix.system",
            ),
            (b"\x80\x02cbuiltins\neval\n.", "builtins.eval"),
            (b"\x80\x02ctorch.hub\nload\n.", "torch.hub.load"),
        ] {
            let message = run(pickle).expect_err("it is refused").to_string();
            assert!(message.contains(name), "{message}");
        }
    }

    /// A checkpoint with `argparse.Namespace`, a path, a set, a `defaultdict` and bytes beside its
    /// weights, by Python's pickle in protocols 2, 3 and 4.
    #[test]
    fn what_scripts_save_beside_the_weights_is_passed_over() {
        for pickle in [
            &b"\x80\x02}q\x00(X\x05\x00\x00\x00modelq\x01}q\x02X\x04\x00\x00\x00argsq\x03cargparse\nNamespace\nq\x04)\x81q\x05}q\x06(X\x02\x00\x00\x00lrq\x07G?\xb9\x99\x99\x99\x99\x99\x9aX\x01\x00\x00\x00pq\x08cpathlib\nPurePosixPath\nq\x09X\x01\x00\x00\x00/q\nX\x01\x00\x00\x00xq\x0b\x86q\x0cRq\x0dX\x01\x00\x00\x00sq\x0ec__builtin__\nset\nq\x0f]q\x10(K\x01K\x02e\x85q\x11Rq\x12ubX\x04\x00\x00\x00bestq\x13ccollections\ndefaultdict\nq\x14c__builtin__\nlist\nq\x15\x85q\x16Rq\x17X\x01\x00\x00\x00aq\x18]q\x19K\x01asX\x03\x00\x00\x00rawq\x1ac_codecs\nencode\nq\x1bX\x03\x00\x00\x00\xc3\xbf\x00q\x1cX\x06\x00\x00\x00latin1q\x1d\x86q\x1eRq\x1fu."[..],
            b"\x80\x03}q\x00(X\x05\x00\x00\x00modelq\x01}q\x02X\x04\x00\x00\x00argsq\x03cargparse\nNamespace\nq\x04)\x81q\x05}q\x06(X\x02\x00\x00\x00lrq\x07G?\xb9\x99\x99\x99\x99\x99\x9aX\x01\x00\x00\x00pq\x08cpathlib\nPurePosixPath\nq\x09X\x01\x00\x00\x00/q\nX\x01\x00\x00\x00xq\x0b\x86q\x0cRq\x0dX\x01\x00\x00\x00sq\x0ecbuiltins\nset\nq\x0f]q\x10(K\x01K\x02e\x85q\x11Rq\x12ubX\x04\x00\x00\x00bestq\x13ccollections\ndefaultdict\nq\x14cbuiltins\nlist\nq\x15\x85q\x16Rq\x17X\x01\x00\x00\x00aq\x18]q\x19K\x01asX\x03\x00\x00\x00rawq\x1aC\x02\xff\x00q\x1bu.",
            b"\x80\x04\x95\xcf\x00\x00\x00\x00\x00\x00\x00}\x94(\x8c\x05model\x94}\x94\x8c\x04args\x94\x8c\x08argparse\x94\x8c\x09Namespace\x94\x93\x94)\x81\x94}\x94(\x8c\x02lr\x94G?\xb9\x99\x99\x99\x99\x99\x9a\x8c\x01p\x94\x8c\x07pathlib\x94\x8c\x0dPurePosixPath\x94\x93\x94\x8c\x01/\x94\x8c\x01x\x94\x86\x94R\x94\x8c\x01s\x94\x8f\x94(K\x01K\x02\x90ub\x8c\x04best\x94\x8c\x0bcollections\x94\x8c\x0bdefaultdict\x94\x93\x94\x8c\x08builtins\x94\x8c\x04list\x94\x93\x94\x85\x94R\x94\x8c\x01a\x94]\x94K\x01as\x8c\x03raw\x94C\x02\xff\x00\x94u.",
        ] {
            let (value, machine, used) = run(pickle).expect("a checkpoint");
            assert_eq!(used, pickle.len());
            assert!(matches!(machine.lookup(value, "model"), Some(Value::Dict(_))));
            assert_eq!(machine.lookup(value, "args"), Some(Value::Opaque));
            for end in 0..pickle.len() {
                assert!(run(&pickle[..end]).is_err());
            }
        }
    }

    #[test]
    fn no_prefix_and_no_flip_of_a_pickle_panics() {
        let pickle = b"\x80\x02}q\x00(X\x01\x00\x00\x00actorch._utils\n_rebuild_tensor_v2\nq\x01((X\x07\x00\x00\x00storage\
            ctorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x06tQK\x00K\x02K\x03\x86K\x03K\x01\x86\x89\
            ccollections\nOrderedDict\n)RtRu.";
        let (value, machine, used) = run(pickle).expect("a state dict");
        assert_eq!(used, pickle.len());
        assert_eq!(machine.pairs(value).map(Iterator::count), Some(1));
        let view = View {
            storage: 0,
            offset: 0,
            size: vec![2, 3],
            stride: vec![3, 1],
        };
        assert_eq!(machine.views, [view]);
        for end in 0..pickle.len() {
            assert!(run(&pickle[..end]).is_err());
        }
        for place in 0..pickle.len() {
            for byte in 0..=u8::MAX {
                let mut changed = pickle.to_vec();
                changed[place] = byte;
                let _ = run(&changed);
            }
        }
    }

    #[test]
    fn deep_nesting_and_far_memo_places_cost_nothing() {
        let mut deep = vec![0x80, 2];
        deep.extend(std::iter::repeat_n(b']', 1_000_000));
        deep.extend(std::iter::repeat_n(b'a', 999_999));
        deep.push(b'.');
        assert!(run(&deep).is_ok());
        assert!(run(b"\x80\x02Nr\xff\xff\xff\xff.").is_ok());
        assert!(run(b"\x80\x02X\xff\xff\xff\xff.").is_err());
    }
}

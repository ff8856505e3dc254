//! The opcodes of a pickle, and the functions that a state dict calls.

use crate::checkpoint::pickle::machine::{Machine, pairs};
use crate::checkpoint::pickle::value::{Callable, Id, MAX_NAME, MAX_RANK, Storage, TensorView, Value, storage_type};
use crate::checkpoint::tensor::Problem;

/// Maximum number of opcodes, which also bounds the memory: a value takes about a hundred bytes, a name up to a kibibyte.
/// The state dict of an encoder takes about forty opcodes for each of its few hundred tensors.
pub(super) const MAX_STEPS: usize = 1 << 20;

impl Machine<'_> {
    /// Runs the program to its end and returns the result.
    pub(super) fn run(&mut self) -> Result<Id, Problem> {
        for _ in 0..MAX_STEPS {
            let opcode = self.u8()?;
            if opcode == b'.' {
                return self.pop();
            }
            self.step(opcode)?;
        }
        Err(Problem::Unsupported(format!("its pickle takes more than {MAX_STEPS} steps")))
    }

    fn step(&mut self, opcode: u8) -> Result<(), Problem> {
        let value = match self.literal(opcode)? {
            None => self.composite(opcode)?,
            literal => literal,
        };
        match value {
            Some(value) => {
                self.push(value);
                Ok(())
            }
            None => self.control(opcode),
        }
    }

    /// The value of an opcode that pushes a literal; `None` for other opcodes.
    fn literal(&mut self, opcode: u8) -> Result<Option<Value>, Problem> {
        Ok(Some(match opcode {
            b'N' => Value::Opaque,                                           // NONE
            0x88 => Value::Int(1),                                           // NEWTRUE
            0x89 => Value::Int(0),                                           // NEWFALSE
            b'J' => Value::Int((self.uint(4)? as u32).cast_signed().into()), // BININT
            b'K' => Value::Int(self.u8()?.into()),                           // BININT1
            b'M' => Value::Int(self.uint(2)? as i64),                        // BININT2
            0x8a => {
                // LONG1
                let len = self.u8()?;
                integer(self.take(len.into())?)
            }
            b'G' => self.opaque(8)?,        // BINFLOAT
            b'X' | b'T' => self.string(4)?, // BINUNICODE, BINSTRING
            0x8c | b'U' => self.string(1)?, // SHORT_BINUNICODE, SHORT_BINSTRING
            0x8d => self.string(8)?,        // BINUNICODE8
            b'C' | b'B' => {
                // SHORT_BINBYTES, BINBYTES
                let len = self.uint(if opcode == b'C' { 1 } else { 4 })?;
                self.opaque(len as usize)?
            }
            b')' => Value::Tuple(Vec::new()), // EMPTY_TUPLE
            b']' => Value::List(Vec::new()),  // EMPTY_LIST
            b'}' => Value::Dict(Vec::new()),  // EMPTY_DICT
            _ => return Ok(None),
        }))
    }

    /// The value of an opcode that pushes a combination of other values; `None` for other opcodes.
    fn composite(&mut self, opcode: u8) -> Result<Option<Value>, Problem> {
        Ok(Some(match opcode {
            b't' => Value::Tuple(self.pop_to_mark()?), // TUPLE
            0x85..=0x87 => Value::Tuple(self.pop_many(usize::from(opcode - 0x84))?), // TUPLE1 to TUPLE3
            b'l' => Value::List(self.pop_to_mark()?),  // LIST
            b'd' => Value::Dict(pairs(&self.pop_to_mark()?).collect()), // DICT
            b'c' => {
                // GLOBAL
                let (module, name) = (self.line()?, self.line()?);
                global(&module, &name)?
            }
            0x93 => {
                // STACK_GLOBAL
                let name = self.pop()?;
                let module = self.pop()?;
                let (Value::Str(module), Value::Str(name)) = (self.value(module), self.value(name)) else {
                    return Err(self.malformed("a global without a name"));
                };
                global(module, name)?
            }
            b'R' => {
                // REDUCE
                let arguments = self.pop()?;
                let callable = self.pop()?;
                self.call(callable, arguments)?
            }
            b'Q' => {
                // BINPERSID
                let id = self.pop()?;
                let storage = self.storage(id);
                Value::Storage(storage.ok_or_else(|| self.malformed("a persistent id that names no storage"))?)
            }
            _ => return Ok(None),
        }))
    }

    /// Executes an opcode that pushes no new value.
    fn control(&mut self, opcode: u8) -> Result<(), Problem> {
        match opcode {
            0x80 => {
                // PROTO
                let protocol = self.u8()?;
                if protocol > 5 {
                    return Err(Problem::Unsupported(format!("it is of pickle protocol {protocol}")));
                }
                Ok(())
            }
            // FRAME announces the number of bytes that follow.
            0x95 => self.take(8).map(|_| ()),
            b'(' => {
                self.mark();
                Ok(())
            }
            b'0' => self.pop().map(|_| ()),
            b'1' => self.pop_to_mark().map(|_| ()),
            b'2' => self.duplicate_top(),
            b'a' | b'e' => {
                // APPEND, APPENDS
                let items = if opcode == b'a' { vec![self.pop()?] } else { self.pop_to_mark()? };
                self.append(&items)
            }
            b's' | b'u' => {
                // SETITEM, SETITEMS
                let items = if opcode == b's' { self.pop_many(2)? } else { self.pop_to_mark()? };
                self.set_items(&items)
            }
            b'q' | b'r' => {
                // BINPUT, LONG_BINPUT
                let key = self.uint(if opcode == b'q' { 1 } else { 4 })? as u32;
                self.memoize(Some(key))
            }
            0x94 => self.memoize(None),
            b'h' | b'j' => {
                // BINGET, LONG_BINGET
                let key = self.uint(if opcode == b'h' { 1 } else { 4 })? as u32;
                self.recall(key)
            }
            b'b' => {
                // BUILD sets attributes of the object below, such as `_metadata` of a state dict. Attributes are no tensors.
                self.pop()?;
                match self.value(self.top()?) {
                    Value::Dict(_) => Ok(()),
                    _ => Err(Problem::Unsupported("its pickle sets attributes of an object".to_owned())),
                }
            }
            other => {
                let at = self.at() - 1;
                let problem = format!("its pickle has opcode 0x{other:02x} at byte {at}, which no state dict needs");
                Err(Problem::Unsupported(problem))
            }
        }
    }

    fn call(&self, callable: Id, arguments: Id) -> Result<Value, Problem> {
        let (Value::Callable(callable), Value::Tuple(arguments)) = (self.value(callable), self.value(arguments)) else {
            return Err(self.malformed("a call of something that cannot be called"));
        };
        let result = match (callable, arguments.as_slice()) {
            (Callable::OrderedDict, []) => Some(Value::Dict(Vec::new())),
            (Callable::RebuildTensor, &[storage, offset, shape, strides])
            | (Callable::RebuildTensorV2, &[storage, offset, shape, strides, _, _, ..]) => {
                // The further arguments of V2 are `requires_grad` and hooks.
                self.tensor(storage, offset, shape, strides)
            }
            (Callable::RebuildParameter, &[data, ..]) => match self.value(data) {
                tensor @ Value::Tensor(_) => Some(tensor.clone()),
                _ => None,
            },
            _ => None,
        };
        result.ok_or_else(|| self.malformed(&format!("a call of {callable:?} with arguments it does not take")))
    }

    fn tensor(&self, storage: Id, offset: Id, shape: Id, strides: Id) -> Option<Value> {
        let Value::Storage(storage) = self.value(storage) else {
            return None;
        };
        let (shape, strides) = (self.sizes(shape)?, self.sizes(strides)?);
        if shape.len() != strides.len() {
            return None;
        }
        Some(Value::Tensor(TensorView { storage: storage.clone(), offset: self.size(offset)?, shape, strides }))
    }

    /// The storage of a persistent id: `("storage", type, key, device, elements)`. In the old format a sixth element
    /// describes a view; only `PyTorch` 0.3 and older write another value than `None` there.
    fn storage(&self, id: Id) -> Option<Storage> {
        let Value::Tuple(parts) = self.value(id) else {
            return None;
        };
        let &[tag, element, key, _device, len, ref view @ ..] = parts.as_slice() else {
            return None;
        };
        let (Value::Str(tag), Value::StorageType(element), Value::Str(key)) =
            (self.value(tag), self.value(element), self.value(key))
        else {
            return None;
        };
        if tag != "storage" || key.len() > MAX_NAME || view.iter().any(|&v| *self.value(v) != Value::Opaque) {
            return None;
        }
        Some(Storage { key: key.clone(), element: *element, len: self.size(len)? })
    }

    fn size(&self, id: Id) -> Option<usize> {
        match *self.value(id) {
            Value::Int(value) => usize::try_from(value).ok(),
            _ => None,
        }
    }

    fn sizes(&self, id: Id) -> Option<Vec<usize>> {
        match self.value(id) {
            Value::Tuple(items) | Value::List(items) if items.len() <= MAX_RANK => {
                items.iter().map(|&item| self.size(item)).collect()
            }
            _ => None,
        }
    }

    /// Reads a string after its length, a number of `len_bytes` bytes.
    fn string(&mut self, len_bytes: usize) -> Result<Value, Problem> {
        let len = usize::try_from(self.uint(len_bytes)?).unwrap_or(usize::MAX);
        let bytes = self.take(len)?;
        let text = str::from_utf8(bytes).map_err(|_| self.malformed("a string that is not UTF-8"))?;
        Ok(Value::Str(text.to_owned()))
    }

    /// Skips the `len` bytes of a value that no state dict depends on.
    fn opaque(&mut self, len: usize) -> Result<Value, Problem> {
        self.take(len)?;
        Ok(Value::Opaque)
    }

    fn u8(&mut self) -> Result<u8, Problem> {
        Ok(self.uint(1)? as u8)
    }
}

/// An integer from its bytes in little-endian two's complement.
fn integer(bytes: &[u8]) -> Value {
    if bytes.len() > 8 {
        return Value::Long(bytes.to_vec());
    }
    let fill = if bytes.last().is_some_and(|b| b & 0x80 != 0) { 0xff } else { 0 };
    let mut wide = [fill; 8];
    wide[..bytes.len()].copy_from_slice(bytes);
    Value::Int(i64::from_le_bytes(wide))
}

/// The object behind an allowed name.
fn global(module: &str, name: &str) -> Result<Value, Problem> {
    let value = match (module, name) {
        ("collections", "OrderedDict") => Some(Value::Callable(Callable::OrderedDict)),
        ("torch._utils", "_rebuild_tensor") => Some(Value::Callable(Callable::RebuildTensor)),
        ("torch._utils", "_rebuild_tensor_v2") => Some(Value::Callable(Callable::RebuildTensorV2)),
        ("torch._utils", "_rebuild_parameter") => Some(Value::Callable(Callable::RebuildParameter)),
        ("torch" | "torch.storage", name) => storage_type(name).map(Value::StorageType),
        _ => None,
    };
    value.ok_or_else(|| {
        let problem = "which no state dict needs; nothing was executed";
        Problem::Unsupported(format!("its pickle refers to `{module}.{name}`, {problem}"))
    })
}

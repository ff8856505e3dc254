//! The stack machine that a pickle is a program for.

use std::collections::HashMap;

use super::{Callable, Id, MAX_NAME, MAX_RANK, Storage, Tensor, Value, storage_type};
use crate::checkpoint::Problem;

/// More steps than the state dict of any encoder takes (twenty or so for each tensor); bounds memory as well.
pub(super) const MAX_STEPS: usize = 1 << 22;

/// The stack machine.
pub(super) struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    values: Vec<Value>,
    stack: Vec<Id>,
    /// Heights of the stack where a `MARK` was.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
}

impl<'a> Machine<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, values: Vec::new(), stack: Vec::new(), marks: Vec::new(), memo: HashMap::new() }
    }

    /// The values made so far, and how many bytes that took.
    pub(super) fn finish(self) -> (Vec<Value>, usize) {
        (self.values, self.at)
    }

    /// Runs to the end; returns the value that is left.
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
        match opcode {
            0x80 => {
                let protocol = self.u8()?;
                if protocol > 5 {
                    return Err(Problem::Unsupported(format!("it is of pickle protocol {protocol}")));
                }
            }
            // A frame only announces how many bytes follow.
            0x95 => _ = self.take(8)?,

            b'(' => self.marks.push(self.stack.len()),
            b'0' => _ = self.pop()?,
            b'1' => _ = self.pop_to_mark()?,
            b'2' => {
                let top = self.top()?;
                self.stack.push(top);
            }

            b'N' => self.push(Value::Opaque),
            0x88 => self.push(Value::Int(1)),
            0x89 => self.push(Value::Int(0)),
            b'J' => {
                let value = i32::from_le_bytes(self.array()?);
                self.push(Value::Int(value.into()));
            }
            b'K' => {
                let value = self.u8()?;
                self.push(Value::Int(value.into()));
            }
            b'M' => {
                let value = u16::from_le_bytes(self.array()?);
                self.push(Value::Int(value.into()));
            }
            0x8a => {
                let len = self.u8()?;
                self.long(len.into())?;
            }
            b'G' => {
                self.take(8)?;
                self.push(Value::Opaque);
            }
            b'X' | b'T' => {
                let len = u32::from_le_bytes(self.array()?);
                self.str(len as usize)?;
            }
            0x8c | b'U' => {
                let len = self.u8()?;
                self.str(len.into())?;
            }
            0x8d => {
                let len = u64::from_le_bytes(self.array()?);
                self.str(usize::try_from(len).unwrap_or(usize::MAX))?;
            }
            b'C' => {
                let len = self.u8()?;
                self.take(len.into())?;
                self.push(Value::Opaque);
            }
            b'B' => {
                let len = u32::from_le_bytes(self.array()?);
                self.take(len as usize)?;
                self.push(Value::Opaque);
            }

            b')' => self.push(Value::Tuple(Vec::new())),
            b't' => {
                let items = self.pop_to_mark()?;
                self.push(Value::Tuple(items));
            }
            0x85..=0x87 => {
                let len = usize::from(opcode - 0x84);
                let start = self.above_mark(len)?;
                let items = self.stack.split_off(start);
                self.push(Value::Tuple(items));
            }
            b']' => self.push(Value::List(Vec::new())),
            b'l' => {
                let items = self.pop_to_mark()?;
                self.push(Value::List(items));
            }
            b'a' => {
                let item = self.pop()?;
                self.append(&[item])?;
            }
            b'e' => {
                let items = self.pop_to_mark()?;
                self.append(&items)?;
            }
            b'}' => self.push(Value::Dict(Vec::new())),
            b'd' => {
                let items = self.pop_to_mark()?;
                self.push(Value::Dict(Vec::new()));
                self.set_items(&items)?;
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.set_items(&[key, value])?;
            }
            b'u' => {
                let items = self.pop_to_mark()?;
                self.set_items(&items)?;
            }

            b'q' => {
                let key = self.u8()?;
                self.remember(key.into())?;
            }
            b'r' => {
                let key = u32::from_le_bytes(self.array()?);
                self.remember(key)?;
            }
            0x94 => self.remember(self.memo.len() as u32)?,
            b'h' => {
                let key = self.u8()?;
                self.recall(key.into())?;
            }
            b'j' => {
                let key = u32::from_le_bytes(self.array()?);
                self.recall(key)?;
            }

            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.global(&module, &name)?;
            }
            0x93 => {
                let name = self.pop()?;
                let module = self.pop()?;
                let (Value::Str(module), Value::Str(name)) = (&self.values[module], &self.values[name]) else {
                    return Err(self.malformed("a global without a name"));
                };
                let (module, name) = (module.clone(), name.clone());
                self.global(&module, &name)?;
            }
            b'R' => {
                let arguments = self.pop()?;
                let callable = self.pop()?;
                self.call(callable, arguments)?;
            }
            // Sets attributes of the object below, such as `_metadata` of a module's state dict: no tensors.
            b'b' => {
                self.pop()?;
                let object = self.top()?;
                if !matches!(self.values[object], Value::Dict(_)) {
                    return Err(Problem::Unsupported("its pickle sets attributes of an object".to_owned()));
                }
            }
            b'Q' => {
                let id = self.pop()?;
                let storage =
                    self.storage(id).ok_or_else(|| self.malformed("a persistent id that names no storage"))?;
                self.push(Value::Storage(storage));
            }
            other => {
                let problem =
                    format!("its pickle has opcode 0x{other:02x} at byte {}, which no state dict needs", self.at - 1);
                return Err(Problem::Unsupported(problem));
            }
        }
        Ok(())
    }

    /// Puts the object behind an allowed name on the stack.
    fn global(&mut self, module: &str, name: &str) -> Result<(), Problem> {
        let value = match (module, name) {
            ("collections", "OrderedDict") => Value::Callable(Callable::OrderedDict),
            ("torch._utils", "_rebuild_tensor") => Value::Callable(Callable::RebuildTensor),
            ("torch._utils", "_rebuild_tensor_v2") => Value::Callable(Callable::RebuildTensorV2),
            ("torch._utils", "_rebuild_parameter") => Value::Callable(Callable::RebuildParameter),
            ("torch" | "torch.storage", name) if storage_type(name).is_some() => {
                storage_type(name).map_or(Value::Opaque, Value::StorageType)
            }
            _ => {
                let problem =
                    format!("its pickle refers to `{module}.{name}`, which no state dict needs; nothing was executed");
                return Err(Problem::Unsupported(problem));
            }
        };
        self.push(value);
        Ok(())
    }

    fn call(&mut self, callable: Id, arguments: Id) -> Result<(), Problem> {
        let (Value::Callable(callable), Value::Tuple(arguments)) = (&self.values[callable], &self.values[arguments])
        else {
            return Err(self.malformed("a call of something that cannot be called"));
        };
        let result = match (callable, arguments.as_slice()) {
            (Callable::OrderedDict, []) => Some(Value::Dict(Vec::new())),
            (Callable::RebuildTensor, &[storage, offset, shape, strides]) => {
                self.tensor(storage, offset, shape, strides)
            }
            (Callable::RebuildTensorV2, &[storage, offset, shape, strides, _requires_grad, _hooks, ..]) => {
                self.tensor(storage, offset, shape, strides)
            }
            (Callable::RebuildParameter, &[data, ..]) => match &self.values[data] {
                tensor @ Value::Tensor(_) => Some(tensor.clone()),
                _ => None,
            },
            _ => None,
        };
        match result {
            Some(value) => self.push(value),
            None => {
                return Err(self.malformed(&format!("a call of {callable:?} with arguments it does not take")));
            }
        }
        Ok(())
    }

    fn tensor(&self, storage: Id, offset: Id, shape: Id, strides: Id) -> Option<Value> {
        let Value::Storage(storage) = &self.values[storage] else {
            return None;
        };
        let (shape, strides) = (self.sizes(shape)?, self.sizes(strides)?);
        if shape.len() != strides.len() {
            return None;
        }
        Some(Value::Tensor(Tensor { storage: storage.clone(), offset: self.size(offset)?, shape, strides }))
    }

    /// The storage that a persistent id names: `("storage", type, key, device, elements)`, in the old format
    /// followed by the description of a view, which only `PyTorch` before 0.4 wrote and is `None` otherwise.
    fn storage(&self, id: Id) -> Option<Storage> {
        let Value::Tuple(parts) = &self.values[id] else {
            return None;
        };
        let &[tag, element, key, _device, len, ref view @ ..] = parts.as_slice() else {
            return None;
        };
        let (Value::Str(tag), Value::StorageType(element), Value::Str(key)) =
            (&self.values[tag], &self.values[element], &self.values[key])
        else {
            return None;
        };
        if tag != "storage" || key.len() > MAX_NAME || view.iter().any(|&v| self.values[v] != Value::Opaque) {
            return None;
        }
        Some(Storage { key: key.clone(), element: *element, len: self.size(len)? })
    }

    fn size(&self, id: Id) -> Option<usize> {
        match self.values[id] {
            Value::Int(value) => usize::try_from(value).ok(),
            _ => None,
        }
    }

    fn sizes(&self, id: Id) -> Option<Vec<usize>> {
        match &self.values[id] {
            Value::Tuple(items) | Value::List(items) if items.len() <= MAX_RANK => {
                items.iter().map(|&item| self.size(item)).collect()
            }
            _ => None,
        }
    }

    fn append(&mut self, items: &[Id]) -> Result<(), Problem> {
        let list = self.top()?;
        match &mut self.values[list] {
            Value::List(list) => list.extend_from_slice(items),
            _ => return Err(self.malformed("items for something that is no list")),
        }
        Ok(())
    }

    fn set_items(&mut self, items: &[Id]) -> Result<(), Problem> {
        let dict = self.top()?;
        match &mut self.values[dict] {
            Value::Dict(entries) => {
                entries.extend(items.as_chunks().0.iter().map(|&[key, value]| (key, value)));
            }
            _ => return Err(self.malformed("items for something that is no dictionary")),
        }
        Ok(())
    }

    fn push(&mut self, value: Value) {
        self.stack.push(self.values.len());
        self.values.push(value);
    }

    /// Height of the stack `count` values below its top, which must not reach below the last mark.
    fn above_mark(&self, count: usize) -> Result<usize, Problem> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.len().checked_sub(count) {
            Some(height) if height >= floor => Ok(height),
            _ => Err(self.malformed("an opcode with too few values before it")),
        }
    }

    fn pop(&mut self) -> Result<Id, Problem> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    fn top(&self) -> Result<Id, Problem> {
        Ok(self.stack[self.above_mark(1)?])
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Id>, Problem> {
        match self.marks.pop() {
            Some(height) => Ok(self.stack.split_off(height)),
            None => Err(self.malformed("an opcode without the mark it needs")),
        }
    }

    fn remember(&mut self, key: u32) -> Result<(), Problem> {
        let top = self.top()?;
        self.memo.insert(key, top);
        Ok(())
    }

    fn recall(&mut self, key: u32) -> Result<(), Problem> {
        match self.memo.get(&key) {
            Some(&id) => self.stack.push(id),
            None => return Err(self.malformed("a reference to a value that was not remembered")),
        }
        Ok(())
    }

    fn long(&mut self, len: usize) -> Result<(), Problem> {
        let bytes = self.take(len)?;
        let value = if len <= 8 {
            let fill = if bytes.last().is_some_and(|b| b & 0x80 != 0) { 0xff } else { 0 };
            let mut wide = [fill; 8];
            wide[..len].copy_from_slice(bytes);
            Value::Int(i64::from_le_bytes(wide))
        } else {
            Value::Long(bytes.to_vec())
        };
        self.push(value);
        Ok(())
    }

    fn str(&mut self, len: usize) -> Result<(), Problem> {
        let bytes = self.take(len)?;
        let text = str::from_utf8(bytes).map_err(|_| self.malformed("a string that is not UTF-8"))?.to_owned();
        self.push(Value::Str(text));
        Ok(())
    }

    fn line(&mut self) -> Result<String, Problem> {
        let rest = &self.bytes[self.at..];
        let len = rest.iter().position(|&b| b == b'\n').ok_or_else(|| self.malformed("a name without an end"))?;
        self.at += len + 1;
        Ok(String::from_utf8_lossy(&rest[..len]).into_owned())
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], Problem> {
        let end = self.at.checked_add(len).filter(|&end| end <= self.bytes.len());
        let end = end.ok_or_else(|| self.malformed("an end in the middle"))?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Problem> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn u8(&mut self) -> Result<u8, Problem> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    fn malformed(&self, what: &str) -> Problem {
        Problem::Malformed(format!("its pickle has {what}, at byte {}", self.at))
    }
}

//! The state of the stack machine of a pickle: input bytes, values, stack, marks and memo.

use std::collections::HashMap;

use crate::checkpoint::pickle::value::{Id, Value};
use crate::checkpoint::tensor::Problem;

/// The stack machine.
pub(super) struct Machine<'a> {
    bytes: &'a [u8],
    /// Index of the next byte of the input.
    at: usize,
    values: Vec<Value>,
    stack: Vec<Id>,
    /// The heights of the stack at each `MARK`.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
}

impl<'a> Machine<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, values: Vec::new(), stack: Vec::new(), marks: Vec::new(), memo: HashMap::new() }
    }

    /// All values, and the number of bytes read.
    pub(super) fn into_values(self) -> (Vec<Value>, usize) {
        (self.values, self.at)
    }

    pub(super) fn value(&self, id: Id) -> &Value {
        &self.values[id]
    }

    pub(super) fn push(&mut self, value: Value) {
        self.stack.push(self.values.len());
        self.values.push(value);
    }

    pub(super) fn pop(&mut self) -> Result<Id, Problem> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    pub(super) fn pop_many(&mut self, count: usize) -> Result<Vec<Id>, Problem> {
        let height = self.height_below(count)?;
        Ok(self.stack.split_off(height))
    }

    pub(super) fn top(&self) -> Result<Id, Problem> {
        Ok(self.stack[self.height_below(1)?])
    }

    pub(super) fn duplicate_top(&mut self) -> Result<(), Problem> {
        let top = self.top()?;
        self.stack.push(top);
        Ok(())
    }

    pub(super) fn mark(&mut self) {
        self.marks.push(self.stack.len());
    }

    pub(super) fn pop_to_mark(&mut self) -> Result<Vec<Id>, Problem> {
        match self.marks.pop() {
            Some(height) => Ok(self.stack.split_off(height)),
            None => Err(self.malformed("an opcode without the mark it needs")),
        }
    }

    /// The height of the stack below its `count` top values, which must be above the last mark.
    fn height_below(&self, count: usize) -> Result<usize, Problem> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.len().checked_sub(count) {
            Some(height) if height >= floor => Ok(height),
            _ => Err(self.malformed("an opcode with too few values before it")),
        }
    }

    /// Stores the top value in the memo, under the next free key if `key` is `None`.
    pub(super) fn memoize(&mut self, key: Option<u32>) -> Result<(), Problem> {
        let top = self.top()?;
        self.memo.insert(key.unwrap_or(self.memo.len() as u32), top);
        Ok(())
    }

    /// Pushes a value of the memo.
    pub(super) fn recall(&mut self, key: u32) -> Result<(), Problem> {
        match self.memo.get(&key) {
            Some(&id) => self.stack.push(id),
            None => return Err(self.malformed("a reference to a value that was not remembered")),
        }
        Ok(())
    }

    /// Appends items to the list at the top.
    pub(super) fn append(&mut self, items: &[Id]) -> Result<(), Problem> {
        let list = self.top()?;
        match &mut self.values[list] {
            Value::List(list) => list.extend_from_slice(items),
            _ => return Err(self.malformed("items for something that is no list")),
        }
        Ok(())
    }

    /// Adds entries, given as alternating keys and values, to the dictionary at the top.
    pub(super) fn set_items(&mut self, items: &[Id]) -> Result<(), Problem> {
        let dict = self.top()?;
        match &mut self.values[dict] {
            Value::Dict(entries) => entries.extend(pairs(items)),
            _ => return Err(self.malformed("items for something that is no dictionary")),
        }
        Ok(())
    }

    /// Reads `len` bytes.
    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8], Problem> {
        let end = self.at.checked_add(len).filter(|&end| end <= self.bytes.len());
        let end = end.ok_or_else(|| self.malformed("an end in the middle"))?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    /// Reads a little-endian unsigned integer of at most 8 bytes.
    pub(super) fn uint(&mut self, len: usize) -> Result<u64, Problem> {
        let mut wide = [0; 8];
        wide[..len].copy_from_slice(self.take(len)?);
        Ok(u64::from_le_bytes(wide))
    }

    /// Reads bytes up to a line end, which is not part of the result.
    pub(super) fn line(&mut self) -> Result<String, Problem> {
        let rest = &self.bytes[self.at..];
        let len = rest.iter().position(|&b| b == b'\n').ok_or_else(|| self.malformed("a name without an end"))?;
        self.at += len + 1;
        Ok(String::from_utf8_lossy(&rest[..len]).into_owned())
    }

    /// The index of the next byte of the input.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    pub(super) fn malformed(&self, what: &str) -> Problem {
        Problem::Malformed(format!("its pickle has {what}, at byte {}", self.at))
    }
}

/// Entries of a dictionary from alternating keys and values. An odd item at the end is ignored.
pub(super) fn pairs(items: &[Id]) -> impl Iterator<Item = (Id, Id)> {
    items.as_chunks().0.iter().map(|&[key, value]| (key, value))
}

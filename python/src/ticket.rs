//! Tickets, with masks as numpy arrays.

use std::path::PathBuf;

use numpy::{PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray2, PyUntypedArrayMethods};
use pyo3::exceptions::PyKeyError;
use pyo3::prelude::*;
use tamt::base::Base;
use tamt::import::of_masks;
use tamt::inspect::Rates;
use tamt::run::Stop;
use tamt::ticket::Ticket as Inner;
use tamt_cli::call::{Failure, FailureKind, failure_of};
use tamt_kernels::masks::BitMask;

use crate::errors::raised;
use crate::values::to_python;
use crate::work::wait;

/// Masks by the names of their matrices.
pub(crate) type GivenMasks<'py> = Vec<(String, PyReadonlyArray2<'py, bool>)>;

/// A ticket in memory.
#[pyclass(frozen, eq, module = "tamt._native")]
#[derive(PartialEq)]
pub(crate) struct Ticket {
    pub(crate) ticket: Inner,
}

impl Ticket {
    fn matrix(&self, name: &str) -> PyResult<&BitMask> {
        let found = self.ticket.matrices.iter().find(|(matrix, _)| matrix == name);
        found.map(|(_, mask)| mask).ok_or_else(|| PyKeyError::new_err(format!("the ticket has no mask of {name}")))
    }
}

#[pymethods]
impl Ticket {
    #[staticmethod]
    fn load(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        let read = py.detach(|| Inner::read(&path));
        read.map(|ticket| Self { ticket }).map_err(|error| raised(py, failure_of(error)))
    }

    #[staticmethod]
    fn from_masks(py: Python<'_>, masks: GivenMasks<'_>, base: PathBuf) -> PyResult<Self> {
        let packed = packed(masks)?;
        let make = |_| Base::load(&base).and_then(|base| of_masks(&base, packed)).map_err(failure_of);
        Ok(Self { ticket: wait(py, &Stop::new(), None, make)? })
    }

    fn save(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        py.detach(|| self.ticket.write(&path)).map_err(|error| raised(py, failure_of(error)))
    }

    /// The names of the masked matrices, in the order of the file.
    #[getter]
    fn names(&self) -> Vec<String> {
        self.ticket.matrices.iter().map(|(name, _)| name.clone()).collect()
    }

    fn mask<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyArray2<bool>>> {
        let mask = self.matrix(name)?;
        PyArray1::from_vec(py, mask.to_bools()).reshape([mask.rows(), mask.cols()])
    }

    /// Share of dropped weights: of a matrix, or of all that the ticket masks.
    #[pyo3(signature = (name=None))]
    fn sparsity(&self, name: Option<&str>) -> PyResult<f64> {
        let Some(name) = name else { return Ok(Rates::of(&self.ticket, None).sparsity) };
        let mask = self.matrix(name)?;
        Ok(1.0 - mask.count_ones() as f64 / mask.len().max(1) as f64)
    }

    /// The rates of the ticket, with the Jaccard similarities to another one.
    #[pyo3(signature = (other=None))]
    fn rates<'py>(&self, py: Python<'py>, other: Option<&Self>) -> PyResult<Bound<'py, PyAny>> {
        let rates = Rates::of(&self.ticket, None);
        let rates = match other {
            None => rates,
            Some(other) => rates.against(&self.ticket, &other.ticket).map_err(|error| raised(py, failure_of(error)))?,
        };
        as_json(py, &rates)
    }

    /// The origin.
    #[getter]
    fn provenance<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        as_json(py, &self.ticket.provenance)
    }
}

/// The masks of arrays in the order of C.
pub(crate) fn packed(masks: GivenMasks<'_>) -> PyResult<Vec<(String, BitMask)>> {
    let packed = masks.into_iter().map(|(name, kept)| {
        let &[rows, cols] = kept.shape() else { unreachable!("the type has two dimensions") };
        Ok((name, BitMask::of_bools(rows, cols, kept.as_slice()?)))
    });
    packed.collect()
}

fn as_json<'py, T: serde::Serialize>(py: Python<'py>, value: &T) -> PyResult<Bound<'py, PyAny>> {
    let value = serde_json::to_value(value)
        .map_err(|error| raised(py, Failure { kind: FailureKind::Other, message: error.to_string() }))?;
    to_python(py, &value)
}

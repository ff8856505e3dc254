//! A graph under construction: nodes, inputs, outputs, and the tensors that the file holds.

use crate::proto::{
    Attribute, DataType, Dimension, GraphProto, NodeProto, TensorShape, TensorType, TypeProto, ValueInfo,
};
use crate::weights::{Initializer, Values};

/// A dimension of an input or output.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Axis {
    /// A size that each run chooses.
    Dynamic(&'static str),
    /// A size of the model.
    Fixed(usize),
}

/// A graph. A value is known by its name, and each node has one output.
#[derive(Debug, Default)]
pub(crate) struct Graph<'a> {
    proto: GraphProto,
    initializers: Vec<Initializer<'a>>,
}

impl<'a> Graph<'a> {
    pub(crate) fn new(name: &str) -> Self {
        Self { proto: GraphProto { name: name.to_owned(), ..GraphProto::default() }, initializers: Vec::new() }
    }

    /// The nodes, inputs and outputs; and the tensors.
    pub(crate) fn into_parts(self) -> (GraphProto, Vec<Initializer<'a>>) {
        (self.proto, self.initializers)
    }

    /// Adds an input of integers and returns its name.
    pub(crate) fn input(&mut self, name: &'static str, axes: &[Axis]) -> &'static str {
        self.proto.input.push(value_info(name, DataType::Int64, axes));
        name
    }

    /// Makes the value `value` of a node an output of floats, under another name. A node that only gives a name would leave
    /// the output with two names in some engines.
    pub(crate) fn output(&mut self, name: &'static str, value: &str, axes: &[Axis]) {
        let names = self.proto.node.iter_mut().flat_map(|node| node.input.iter_mut().chain(&mut node.output));
        names.filter(|used| *used == value).for_each(|used| name.clone_into(used));
        self.proto.output.push(value_info(name, DataType::Float, axes));
    }

    /// Adds a node and returns the name of its output. The name has the number of the node, so names are unique.
    pub(crate) fn node(&mut self, op: &str, inputs: &[&str], attributes: &[Attribute]) -> String {
        let output = format!("{op}_{}", self.proto.node.len());
        self.proto.node.push(NodeProto {
            input: inputs.iter().map(|&input| input.to_owned()).collect(),
            name: format!("node_{output}"),
            output: vec![output.clone()],
            op_type: op.to_owned(),
            attribute: attributes.to_vec(),
        });
        output
    }

    /// Adds a tensor and returns its name.
    pub(crate) fn tensor(&mut self, name: impl Into<String>, dims: &[usize], values: Values<'a>) -> String {
        let name = name.into();
        self.initializers.push(Initializer { name: name.clone(), dims: dims.to_vec(), values });
        name
    }

    /// Adds a list of integers, such as a shape.
    pub(crate) fn integers(&mut self, values: &[i64]) -> String {
        let name = format!("integers_{}", self.initializers.len());
        self.tensor(name, &[values.len()], Values::Integers(values.to_vec()))
    }

    /// Adds an integer.
    pub(crate) fn integer(&mut self, value: i64) -> String {
        let name = format!("integer_{}", self.initializers.len());
        self.tensor(name, &[], Values::Integers(vec![value]))
    }

    /// Adds a number.
    pub(crate) fn number(&mut self, value: f32) -> String {
        let name = format!("number_{}", self.initializers.len());
        self.tensor(name, &[], Values::Floats(vec![value].into()))
    }
}

fn value_info(name: &str, kind: DataType, axes: &[Axis]) -> ValueInfo {
    let dim = axes.iter().map(|axis| match *axis {
        Axis::Dynamic(name) => Dimension { dim_value: None, dim_param: Some(name.to_owned()) },
        Axis::Fixed(size) => Dimension { dim_value: Some(size as i64), dim_param: None },
    });
    let shape = Some(TensorShape { dim: dim.collect() });
    let tensor_type = Some(TensorType { elem_type: kind as i32, shape });
    ValueInfo { name: name.to_owned(), r#type: Some(TypeProto { tensor_type }) }
}

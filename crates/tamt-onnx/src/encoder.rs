//! The graph of an encoder.
//!
//! The names of the inputs, of their axes and of the last hidden states are those of Hugging Face's Optimum.

use tamt_kernels::ops::activation::Activation;
use tamt_model::model::{Dense, Layer, Norm};
use tamt_model::{Family, Masks, Model, ParamId};

use crate::graph::{Axis, Graph};
use crate::proto::{Attribute, DataType};
use crate::weights::{Matrix, Values};

/// The axes of tokens.
pub(crate) const TOKENS: [Axis; 2] = [Axis::Dynamic("batch_size"), Axis::Dynamic("sequence_length")];

/// How weights of the layers' matrices and of the word embeddings are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Weights {
    /// Single precision.
    #[default]
    F32,
    /// 8 bits with one scale for each output (each token of the word embeddings), symmetric, so that zeros stay zeros. The
    /// arithmetic is in single precision.
    Int8,
}

/// A graph of a model under masks.
#[derive(Debug)]
pub(crate) struct Builder<'a> {
    pub(crate) graph: Graph<'a>,
    pub(crate) model: &'a Model,
    masks: &'a Masks,
    weights: Weights,
}

impl<'a> Builder<'a> {
    pub(crate) fn new(model: &'a Model, masks: &'a Masks, weights: Weights) -> Self {
        Self { graph: Graph::new(model.config.family.prefix()), model, masks, weights }
    }

    /// A node.
    pub(crate) fn op(&mut self, op: &str, inputs: &[&str], attributes: &[Attribute]) -> String {
        self.graph.node(op, inputs, attributes)
    }

    /// `x op value`.
    pub(crate) fn with_number(&mut self, op: &str, x: &str, value: f32) -> String {
        let value = self.graph.number(value);
        self.op(op, &[x, &value], &[])
    }

    /// The encoder: the names of the last hidden states `[batch, sequence, hidden]` and of the attention mask as floats
    /// `[batch, sequence]`.
    pub(crate) fn encoder(&mut self) -> (String, String) {
        let ids = self.graph.input("input_ids", &TOKENS);
        let mask = self.graph.input("attention_mask", &TOKENS);
        let types = (self.model.config.type_vocab_size > 1).then(|| self.graph.input("token_type_ids", &TOKENS));
        let mask = self.op("Cast", &[mask], &[Attribute::int("to", DataType::Float as i64)]);
        // 0 where attention may look and the least number elsewhere, as transformers has it: [batch, 1, 1, sequence].
        let one = self.graph.number(1.0);
        let hidden_tokens = self.op("Sub", &[&one, &mask], &[]);
        let bias = self.with_number("Mul", &hidden_tokens, f32::MIN);
        let axes = self.graph.integers(&[1, 2]);
        let bias = self.op("Unsqueeze", &[&bias, &axes], &[]);

        let mut x = self.embeddings(ids, types);
        let model = self.model;
        for layer in &model.layers {
            x = self.layer(layer, &x, &bias);
        }
        (x, mask)
    }

    /// `LayerNorm(word + position + type)`.
    fn embeddings(&mut self, ids: &str, types: Option<&str>) -> String {
        let embeddings = self.model.embeddings;
        let words = self.words(embeddings.word, ids);
        let positions = self.positions(embeddings.position, ids);
        let types = match types {
            Some(types) => {
                let table = self.plain(embeddings.token_type);
                self.op("Gather", &[&table, types], &[Attribute::int("axis", 0)])
            }
            // All tokens are of the only type.
            None => self.plain(embeddings.token_type),
        };
        let sum = self.op("Add", &[&words, &types], &[]);
        let sum = self.op("Add", &[&sum, &positions], &[]);
        self.norm(embeddings.norm, &sum)
    }

    fn words(&mut self, id: ParamId, ids: &str) -> String {
        let matrix = Matrix::new(self.model, self.masks, id);
        let [rows, cols] = matrix.shape();
        let rows_of =
            |builder: &mut Self, table: &str| builder.op("Gather", &[table, ids], &[Attribute::int("axis", 0)]);
        if self.weights == Weights::F32 {
            let table = self.graph.tensor(matrix.name(), &[rows, cols], Values::Matrix(matrix));
            return rows_of(self, &table);
        }
        // Only the rows of the tokens are multiplied by their scales.
        let table = self.graph.tensor(format!("{}.int8", matrix.name()), &[rows, cols], Values::Quantized(matrix));
        let scales = self.graph.tensor(format!("{}.scale", matrix.name()), &[rows, 1], Values::Scales(matrix));
        let (values, scales) = (rows_of(self, &table), rows_of(self, &scales));
        let values = self.op("Cast", &[&values], &[Attribute::int("to", DataType::Float as i64)]);
        self.op("Mul", &[&values, &scales], &[])
    }

    /// The embeddings of the positions. BERT counts from 0; `RoBERTa` counts the tokens that are no padding, from the row
    /// after the padding token's.
    fn positions(&mut self, id: ParamId, ids: &str) -> String {
        let table = self.plain(id);
        if self.model.config.family == Family::Bert {
            let length = self.op("Shape", &[ids], &[Attribute::int("start", 1), Attribute::int("end", 2)]);
            let (start, axes) = (self.graph.integers(&[0]), self.graph.integers(&[0]));
            return self.op("Slice", &[&table, &start, &length, &axes], &[]);
        }
        let padding = self.graph.integer(self.model.config.pad_token_id.into());
        let is_padding = self.op("Equal", &[ids, &padding], &[]);
        let is_token = self.op("Not", &[&is_padding], &[]);
        let is_token = self.op("Cast", &[&is_token], &[Attribute::int("to", DataType::Int64 as i64)]);
        let axis = self.graph.integer(1);
        let counted = self.op("CumSum", &[&is_token, &axis], &[]);
        let counted = self.op("Mul", &[&counted, &is_token], &[]);
        let positions = self.op("Add", &[&counted, &padding], &[]);
        self.op("Gather", &[&table, &positions], &[Attribute::int("axis", 0)])
    }

    /// One transformer layer (`BertLayer`).
    fn layer(&mut self, layer: &Layer, x: &str, bias: &str) -> String {
        let context = self.attention(layer, x, bias);
        let projected = self.linear(layer.attention_output, &context);
        let sum = self.op("Add", &[&projected, x], &[]);
        let attended = self.norm(layer.attention_norm, &sum);
        let inner = self.linear(layer.intermediate, &attended);
        let activated = self.activation(&inner);
        let outer = self.linear(layer.output, &activated);
        let sum = self.op("Add", &[&outer, &attended], &[]);
        self.norm(layer.output_norm, &sum)
    }

    /// `softmax(Q Kᵀ / sqrt(head) + bias) V` in each head.
    fn attention(&mut self, layer: &Layer, x: &str, bias: &str) -> String {
        let (heads, size) = (self.model.config.num_attention_heads, self.model.config.head_size());
        let split = self.graph.integers(&[0, 0, heads as i64, size as i64]);
        let [query, key, value] =
            [(layer.query, &[0, 2, 1, 3]), (layer.key, &[0, 2, 3, 1]), (layer.value, &[0, 2, 1, 3])].map(
                |(dense, order)| {
                    let y = self.linear(dense, x);
                    let y = self.op("Reshape", &[&y, &split], &[]);
                    self.op("Transpose", &[&y], &[Attribute::ints("perm", order)])
                },
            );
        let scores = self.op("MatMul", &[&query, &key], &[]);
        let scores = self.with_number("Mul", &scores, 1.0 / (size as f32).sqrt());
        let scores = self.op("Add", &[&scores, bias], &[]);
        let shares = self.op("Softmax", &[&scores], &[Attribute::int("axis", -1)]);
        let context = self.op("MatMul", &[&shares, &value], &[]);
        let context = self.op("Transpose", &[&context], &[Attribute::ints("perm", &[0, 2, 1, 3])]);
        let join = self.graph.integers(&[0, 0, self.model.config.hidden_size as i64]);
        self.op("Reshape", &[&context, &join], &[])
    }

    /// `x Wᵀ + b`. The file holds `Wᵀ`, which a product with `x` reads as it is.
    pub(crate) fn linear(&mut self, dense: Dense, x: &str) -> String {
        let matrix = Matrix::new(self.model, self.masks, dense.weight);
        let [rows, cols] = matrix.shape();
        let name = matrix.name();
        let is_in_layer = self.model.layer_of(dense.weight).is_some();
        let weight = if self.weights == Weights::F32 || !is_in_layer {
            self.graph.tensor(name, &[cols, rows], Values::Transposed(matrix))
        } else {
            let int8 = Values::QuantizedTransposed(matrix);
            let int8 = self.graph.tensor(format!("{name}.int8"), &[cols, rows], int8);
            let scale = self.graph.tensor(format!("{name}.scale"), &[rows], Values::Scales(matrix));
            let zero = self.graph.tensor(format!("{name}.zero_point"), &[rows], Values::ZeroPoints(rows));
            self.op("DequantizeLinear", &[&int8, &scale, &zero], &[Attribute::int("axis", 1)])
        };
        let bias = self.plain(dense.bias);
        let y = self.op("MatMul", &[x, &weight], &[]);
        self.op("Add", &[&y, &bias], &[])
    }

    fn norm(&mut self, norm: Norm, x: &str) -> String {
        let (scale, shift) = (self.plain(norm.weight), self.plain(norm.bias));
        let epsilon = Attribute::float("epsilon", self.model.config.layer_norm_eps);
        self.op("LayerNormalization", &[x, &scale, &shift], &[Attribute::int("axis", -1), epsilon])
    }

    fn activation(&mut self, x: &str) -> String {
        match self.model.config.hidden_act {
            Activation::Gelu => {
                // x (1 + erf(x / sqrt 2)) / 2, in the order of operations that ONNX Runtime fuses.
                let scaled = self.with_number("Div", x, std::f32::consts::SQRT_2);
                let erf = self.op("Erf", &[&scaled], &[]);
                self.half_of_product(x, &erf)
            }
            Activation::GeluTanh => {
                // x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2
                let square = self.op("Mul", &[x, x], &[]);
                let cube = self.op("Mul", &[&square, x], &[]);
                let cubic = self.with_number("Mul", &cube, 0.044_715);
                let sum = self.op("Add", &[x, &cubic], &[]);
                let scaled = self.with_number("Mul", &sum, (2.0 / std::f32::consts::PI).sqrt());
                let tanh = self.op("Tanh", &[&scaled], &[]);
                self.half_of_product(x, &tanh)
            }
            Activation::Relu => self.op("Relu", &[x], &[]),
            Activation::Tanh => self.op("Tanh", &[x], &[]),
        }
    }

    /// `x (1 + y) / 2`.
    fn half_of_product(&mut self, x: &str, y: &str) -> String {
        let sum = self.with_number("Add", y, 1.0);
        let product = self.op("Mul", &[x, &sum], &[]);
        self.with_number("Mul", &product, 0.5)
    }

    /// A tensor that no ticket masks, in single precision.
    fn plain(&mut self, id: ParamId) -> String {
        let model = self.model;
        let spec = model.params.spec(id);
        self.graph.tensor(spec.name.clone(), &spec.shape, Values::Floats(model.params.get(id)))
    }
}

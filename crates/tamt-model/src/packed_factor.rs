//! Packed factors of weight gradients: `dy` or `x` of `dW = dyᵀ x`, in the layout that the product reads.
//!
//! Each job packs the rows of its group of sequences. One product over all groups follows.

use tamt_kernels::Precision;
use tamt_kernels::linear::{Factor, PackedFactor, PackedFactorPart};
use tamt_kernels::sparse::{TokenPanels, TokenPanelsPart, TokenPanelsView};

use crate::batch::SequenceGroup;

/// The layouts of a factor: none, one or both.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FactorLayout {
    /// Packed for the dense kernel in this precision.
    pub(crate) packed: Option<Precision>,
    /// In panels (f32) for the sparse kernel.
    pub(crate) panels: bool,
}

/// One factor `[T, width]` of weight gradients.
#[derive(Clone, Debug, Default)]
pub(crate) struct FactorBuffer {
    packed: PackedFactor,
    panels: TokenPanels,
    /// The layouts that hold the latest batch.
    layout: FactorLayout,
}

/// A group's slot in each layout of a [`FactorBuffer`].
#[derive(Debug, Default)]
pub(crate) struct FactorSlot<'a> {
    pub(crate) packed: Option<PackedFactorPart<'a>>,
    pub(crate) panels: Option<TokenPanelsPart<'a>>,
}

impl FactorBuffer {
    /// Makes room for a batch; returns the slot of each group, of unspecified content.
    pub(crate) fn begin(
        &mut self,
        factor: Factor,
        width: usize,
        groups: &[SequenceGroup],
        layout: FactorLayout,
    ) -> impl Iterator<Item = FactorSlot<'_>> {
        self.layout = layout;
        let tokens = groups.iter().map(|group| group.tokens.len());
        let packed = layout.packed.map(|precision| self.packed.parts(factor, width, tokens.clone(), precision));
        let panels = layout.panels.then(|| self.panels.parts(width, tokens));
        let (mut packed, mut panels) = (packed.into_iter().flatten(), panels.into_iter().flatten());
        groups.iter().map(move |_| FactorSlot { packed: packed.next(), panels: panels.next() })
    }

    /// The factor as packed for the dense kernel, if the latest batch was.
    pub(crate) fn packed(&self) -> Option<&PackedFactor> {
        self.layout.packed.and(Some(&self.packed))
    }

    /// The factor in panels, if the latest batch was packed so.
    pub(crate) fn panels(&self) -> Option<&TokenPanels> {
        self.layout.panels.then_some(&self.panels)
    }
}

impl FactorSlot<'_> {
    /// Packs the group's rows in each layout.
    pub(crate) fn pack(&mut self, rows: &[f32]) {
        if let Some(packed) = &mut self.packed {
            packed.pack(rows);
        }
        if let Some(panels) = &mut self.panels {
            panels.pack(rows);
        }
    }

    /// Packs rows given in panels for the dense kernel, if the factor has this layout; `buffer` holds the rows
    /// meanwhile.
    pub(crate) fn pack_from_panels(&mut self, panels: TokenPanelsView<'_>, buffer: &mut Vec<f32>) {
        if let Some(packed) = &mut self.packed {
            buffer.resize(panels.tokens() * panels.cols(), 0.0);
            panels.unpack(buffer);
            packed.pack(buffer);
        }
    }

    /// The packed panels, if the factor has this layout.
    pub(crate) fn view(&self) -> Option<TokenPanelsView<'_>> {
        self.panels.as_ref().map(TokenPanelsPart::view)
    }
}

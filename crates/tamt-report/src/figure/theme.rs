//! Colours, for light and for dark surroundings.
//!
//! Figures are drawn in the light colours. A style sheet replaces each colour by its dark counterpart, so every role
//! has a light colour of its own. Series have the hues of Paul Tol's "bright" scheme, which readers with any colour
//! vision tell apart, darkened for contrast on white; markers differ in shape as well.

use std::fmt::Write as _;

use plotters::style::RGBColor;

use crate::names::Method;

/// A colour in light and in dark surroundings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Colour {
    light: u32,
    dark: u32,
}

/// Text.
pub const INK: Colour = Colour { light: 0x1F2328, dark: 0xE6EAEE };
/// Labels of ticks and axes.
pub const MUTED: Colour = Colour { light: 0x57606A, dark: 0xA3ACB6 };
/// Lines of the grid.
pub const GRID: Colour = Colour { light: 0xE5E8EB, dark: 0x2B3138 };
/// Axes and the line of the dense model.
pub const AXIS: Colour = Colour { light: 0x8C949D, dark: 0x717B86 };
/// The background, for outlines of markers and text on dark fields.
pub const SURFACE: Colour = Colour { light: 0xFEFEFE, dark: 0x14181D };
/// Text on fields that are light in dark surroundings.
pub const ON_STRONG: Colour = Colour { light: 0xFDFDFD, dark: 0x10141A };

const SERIES: [Colour; 9] = [
    Colour { light: 0x6B7280, dark: 0xA1A8B3 },
    Colour { light: 0x9A7700, dark: 0xDDBE4A },
    Colour { light: 0x1E90B8, dark: 0x66CCEE },
    Colour { light: 0x1F7A33, dark: 0x62C274 },
    Colour { light: 0x3465B4, dark: 0x86AEEE },
    Colour { light: 0xA32C72, dark: 0xE58ABF },
    Colour { light: 0xC8443F, dark: 0xFF8F88 },
    Colour { light: 0x6B4FA8, dark: 0xB7A0EC },
    Colour { light: 0x2F4858, dark: 0x9FC0D2 },
];

/// A sequential scale from nothing to much.
const SEQUENTIAL: [Colour; 9] = [
    Colour { light: 0xF1F5FA, dark: 0x1A2028 },
    Colour { light: 0xDEE9F5, dark: 0x1B2A3B },
    Colour { light: 0xC6DAEE, dark: 0x1D3650 },
    Colour { light: 0xA8C7E5, dark: 0x1F4466 },
    Colour { light: 0x85B0DA, dark: 0x25557F },
    Colour { light: 0x6096CC, dark: 0x336C9E },
    Colour { light: 0x3F7ABA, dark: 0x4C89BF },
    Colour { light: 0x275E9E, dark: 0x76ABDA },
    Colour { light: 0x15437A, dark: 0xA9CFF0 },
];

/// A diverging scale: losses, nothing, gains.
const DIVERGING: [Colour; 9] = [
    Colour { light: 0x9C4A12, dark: 0xF0A468 },
    Colour { light: 0xC8763A, dark: 0xC47A40 },
    Colour { light: 0xE3AB80, dark: 0x8A552C },
    Colour { light: 0xF3DAC6, dark: 0x4A3423 },
    Colour { light: 0xF3F4F4, dark: 0x20252B },
    Colour { light: 0xCDE0EF, dark: 0x1D3A50 },
    Colour { light: 0x92BDDE, dark: 0x2A6088 },
    Colour { light: 0x4A8EC2, dark: 0x4E93C4 },
    Colour { light: 0x1B5E99, dark: 0x8CC4EE },
];

impl Colour {
    /// The light colour.
    pub(crate) fn rgb(self) -> RGBColor {
        let [_, r, g, b] = self.light.to_be_bytes();
        RGBColor(r, g, b)
    }

    /// The light colour as SVG writes it.
    pub(crate) fn hex(self) -> String {
        format!("#{:06X}", self.light)
    }
}

/// The colour and the shape of a method's markers, the same in all figures.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// The colour.
    pub colour: Colour,
    /// The number of the marker's shape.
    pub shape: usize,
}

/// The look of `method` among `methods`. Known methods look the same in every report; variants and other methods take
/// what is left, in order.
#[must_use]
pub fn look(method: &Method, methods: &[Method]) -> Look {
    let fixed = |method: &Method| {
        let at = method.place_of_ticket()?;
        let first = methods.iter().filter(|other| !other.is_dense()).find(|other| other.name == method.name);
        (first == Some(method)).then_some(at)
    };
    if method.is_dense() {
        return Look { colour: AXIS, shape: 0 };
    }
    let place = fixed(method).unwrap_or_else(|| {
        let taken: Vec<usize> = methods.iter().filter_map(fixed).collect();
        let free: Vec<usize> = (0..SERIES.len()).rev().filter(|at| !taken.contains(at)).collect();
        let others: Vec<&Method> = methods.iter().filter(|m| !m.is_dense() && fixed(m).is_none()).collect();
        let at = others.iter().position(|other| *other == method).unwrap_or(0);
        free.get(at % free.len().max(1)).copied().unwrap_or(0)
    });
    Look { colour: SERIES[place], shape: place }
}

/// The step of the sequential scale for a share from 0 to 1, and the colour of text on the step.
pub(super) fn sequential(share: f64) -> (Colour, Colour) {
    let step = (share.clamp(0.0, 1.0) * 9.0).min(8.0) as usize;
    (SEQUENTIAL[step], if step >= 5 { ON_STRONG } else { INK })
}

/// The step of the diverging scale for a share from -1 to 1, and the colour of text on the step.
pub(super) fn diverging(share: f64) -> (Colour, Colour) {
    let step = (4.0 + (share.clamp(-1.0, 1.0) * 4.0).round()) as usize;
    (DIVERGING[step], if [0, 1, 7, 8].contains(&step) { ON_STRONG } else { INK })
}

/// The rules that turn light colours into dark ones, for all elements below `scope`.
#[must_use]
pub fn dark_rules(scope: &str) -> String {
    let roles = [INK, MUTED, GRID, AXIS, SURFACE, ON_STRONG];
    let mut rules = String::new();
    for colour in roles.iter().chain(&SERIES).chain(&SEQUENTIAL).chain(&DIVERGING) {
        for property in ["fill", "stroke"] {
            let _ = write!(rules, "{scope}[{property}=\"{}\"]{{{property}:#{:06X}}}", colour.hex(), colour.dark);
        }
    }
    rules
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_role_has_a_light_colour_of_its_own() {
        let roles = [INK, MUTED, GRID, AXIS, SURFACE, ON_STRONG];
        let all: Vec<u32> =
            roles.iter().chain(&SERIES).chain(&SEQUENTIAL).chain(&DIVERGING).map(|colour| colour.light).collect();
        assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len());
    }

    /// Relative luminance and contrast ratio of WCAG 2.
    fn contrast(a: u32, b: u32) -> f64 {
        let luminance = |colour: u32| {
            let channel = |byte: u8| {
                let c = f64::from(byte) / 255.0;
                if c <= 0.03928 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) }
            };
            let [_, r, g, b] = colour.to_be_bytes();
            0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b)
        };
        let (x, y) = (luminance(a), luminance(b));
        (x.max(y) + 0.05) / (x.min(y) + 0.05)
    }

    #[test]
    fn text_and_lines_stand_out_in_light_and_in_dark() {
        for colour in [INK, MUTED] {
            assert!(contrast(colour.light, SURFACE.light) > 4.5, "{colour:?}");
            assert!(contrast(colour.dark, SURFACE.dark) > 4.5, "{colour:?}");
        }
        for colour in SERIES {
            assert!(contrast(colour.light, SURFACE.light) > 3.0, "{colour:?}");
            assert!(contrast(colour.dark, SURFACE.dark) > 3.0, "{colour:?}");
        }
        for share in (0..=8).map(|step| f64::from(step) / 8.0) {
            for (field, text) in [sequential(share), diverging(2.0 * share - 1.0)] {
                assert!(contrast(field.light, text.light) > 3.0, "{field:?} {share}");
                assert!(contrast(field.dark, text.dark) > 3.0, "{field:?} {share}");
            }
        }
    }

    #[test]
    fn two_methods_never_look_alike_while_there_are_colours_left() {
        let method = |name: &str, variant: &str| Method { name: name.into(), variant: variant.into() };
        let methods = [
            method("imp", ""),
            method("imp", "global scope"),
            method("mine", ""),
            method("other", ""),
            Method::dense(),
        ];
        let shapes: HashSet<usize> = methods[..4].iter().map(|m| look(m, &methods).shape).collect();
        assert_eq!(shapes.len(), 4);
        assert_eq!(look(&methods[0], &methods).shape, look(&methods[0], &methods[..1]).shape);
    }
}

//! Layout of charts: margins, names of series, shapes of markers.

use std::f64::consts::{FRAC_1_SQRT_2, TAU};

use crate::figure::theme::Look;

/// Most series that are named at the ends of their curves.
const MOST_AT_ENDS: usize = 8;

/// Longest name in pixels.
const LONGEST: i32 = 140;

/// Sizes in pixels.
pub(super) struct Frame {
    pub(super) width: i32,
    pub(super) height: i32,
    pub(super) left: i32,
    pub(super) right: i32,
    pub(super) top: i32,
    pub(super) bottom: i32,
    pub(super) legend: Legend,
    longest: i32,
}

/// Where series are named.
pub(super) enum Legend {
    /// At the ends of curves.
    AtEnds,
    /// Below the chart, at these places.
    Below(Vec<(i32, i32)>),
}

impl Frame {
    /// The frame of a chart with these series.
    pub(super) fn new(names: &[(String, Look)], joined: bool) -> Self {
        let longest = names.iter().map(|(name, _)| text_width(name)).max().unwrap_or(0);
        let (width, height, left, top, bottom) = (400, 300, 52, 32, 44);
        if joined && names.len() <= MOST_AT_ENDS {
            let right = longest.max(text_width("dense")).min(LONGEST) + 14;
            return Self { width, height, left, right, top, bottom, legend: Legend::AtEnds, longest: LONGEST };
        }
        let (mut places, mut at, mut row) = (Vec::new(), left, 0);
        for (name, _) in names {
            let needed = text_width(name).min(width - left - 30) + 26;
            if at > left && at + needed > width - 6 {
                (at, row) = (left, row + 1);
            }
            places.push((at, height + 4 + 17 * row));
            at += needed;
        }
        let rows = 17 * (row + 1);
        let frame_height = height + rows;
        let legend = Legend::Below(places);
        Self {
            width,
            height: frame_height,
            left,
            right: 14,
            top,
            bottom: bottom + rows,
            legend,
            longest: width - left - 30,
        }
    }

    /// A name that fits its place.
    pub(super) fn fitting(&self, name: &str) -> String {
        if text_width(name) <= self.longest {
            return name.to_owned();
        }
        let room = (f64::from(self.longest) / CHARACTER) as usize;
        let start: String = name.chars().take(room.saturating_sub(1)).collect();
        format!("{}…", start.trim_end())
    }
}

/// Width of a character at 12 pixels in a wide font.
const CHARACTER: f64 = 7.2;

/// The width of a text in pixels, at 12 pixels.
pub(super) fn text_width(text: &str) -> i32 {
    (text.chars().count() as f64 * CHARACTER).ceil() as i32
}

/// Moves heights apart so that names do not overlap, in their order, inside the bounds.
pub(super) fn spread(heights: &[i32], gap: i32, (top, bottom): (i32, i32)) -> Vec<i32> {
    let mut order: Vec<usize> = (0..heights.len()).collect();
    order.sort_by_key(|&i| heights[i]);
    let mut placed: Vec<i32> = order.iter().map(|&i| heights[i].clamp(top, bottom)).collect();
    for i in 1..placed.len() {
        placed[i] = placed[i].max(placed[i - 1] + gap);
    }
    let mut limit = bottom;
    for place in placed.iter_mut().rev() {
        *place = (*place).min(limit);
        limit = *place - gap;
    }
    let mut result = vec![0; heights.len()];
    order.iter().zip(placed).for_each(|(&i, place)| result[i] = place);
    result
}

/// The corners of a marker around its centre. Shapes differ, so that a print without colours can be read.
pub(super) fn marker(shape: usize, radius: f64) -> Vec<(i32, i32)> {
    let regular = |corners: usize, turn: f64, size: f64| -> Vec<(i32, i32)> {
        let corner = |i: usize| {
            let angle = TAU * (i as f64 / corners as f64 + turn);
            ((size * radius * angle.sin()).round() as i32, (-size * radius * angle.cos()).round() as i32)
        };
        (0..corners).map(corner).collect()
    };
    match shape % 9 {
        0 => cross(radius),
        1 => regular(4, 0.125, 1.2),
        2 => regular(3, 0.0, 1.3),
        3 => regular(4, 0.0, 1.25),
        4 => regular(20, 0.0, 1.0),
        5 => regular(3, 0.5, 1.3),
        6 => regular(5, 0.0, 1.2),
        7 => regular(6, 0.0, 1.1),
        _ => star(radius),
    }
}

fn cross(radius: f64) -> Vec<(i32, i32)> {
    // The corners of a plus sign, turned by an eighth.
    let (arm, half) = (1.3 * radius, 0.42 * radius);
    let plus = [(half, arm), (half, half), (arm, half), (arm, -half), (half, -half), (half, -arm)];
    let all = plus.into_iter().chain(plus.map(|(x, y)| (-x, -y)));
    let turned =
        |(x, y): (f64, f64)| ((FRAC_1_SQRT_2 * (x - y)).round() as i32, (FRAC_1_SQRT_2 * (x + y)).round() as i32);
    all.map(turned).collect()
}

fn star(radius: f64) -> Vec<(i32, i32)> {
    let corner = |i: usize| {
        let (angle, size) = (TAU * i as f64 / 10.0, if i.is_multiple_of(2) { 1.4 } else { 0.6 });
        ((size * radius * angle.sin()).round() as i32, (-size * radius * angle.cos()).round() as i32)
    };
    (0..10).map(corner).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_overlap_move_apart_and_stay_inside() {
        assert_eq!(spread(&[50, 52, 10], 10, (0, 100)), [50, 60, 10]);
        assert_eq!(spread(&[98, 99, 100], 10, (0, 100)), [80, 90, 100]);
    }
}
